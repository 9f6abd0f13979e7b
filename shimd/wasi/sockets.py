"""``wasi:sockets``: not given here. The functions that make sockets say so in the interface's own words."""

from typing import NoReturn

from shimd.component.results import Err


class Network:
    """``wasi:sockets/instance-network``: the handle that all else asks for."""

    def instance_network(self) -> object:
        return object()


class NoSockets:
    """The interfaces that make sockets or look names up."""

    def create_tcp_socket(self, _family: str) -> NoReturn:
        raise Err("not-supported")

    def create_udp_socket(self, _family: str) -> NoReturn:
        raise Err("not-supported")

    def resolve_addresses(self, _network: object, _name: str) -> NoReturn:
        raise Err("not-supported")
