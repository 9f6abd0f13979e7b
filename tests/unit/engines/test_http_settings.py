"""The environment of an HTTP app: what is for shimd, and what is for the guest."""

import pytest

from shimd.engine import InvalidSetting
from shimd.engines.http_settings import HttpSettings, for_guest


def test_defaults() -> None:
    settings = HttpSettings.of({})
    assert (settings.host, settings.port, settings.backlog, settings.processes) == ("0.0.0.0", 8080, 128, 1)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80),
        (":9", "0.0.0.0", 9),
        ("[::1]:8080", "::1", 8080),
        ("localhost:0", "localhost", 0),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    settings = HttpSettings.of({"WASMTIME_HTTP_PROXY_SOCKET_ADDR": text})
    assert (settings.host, settings.port) == (host, port)


@pytest.mark.parametrize("text", ["nowhere", "host:", "host:x", "host:70000"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(InvalidSetting, match=text):
        HttpSettings.of({"WASMTIME_HTTP_PROXY_SOCKET_ADDR": text})


@pytest.mark.parametrize("name", ["WASMTIME_HTTP_BACKLOG", "WASMTIME_HTTP_PROXY_BACKLOG"])
def test_both_names_of_the_backlog(name: str) -> None:
    assert HttpSettings.of({name: "7"}).backlog == 7


def test_what_a_guest_sees() -> None:
    ours = {"WASMTIME_HTTP_PROXY_SOCKET_ADDR": "x", "SHIMD_HTTP_IDLE": "1", "SHIMD_HTTP_TIMEOUT": "1"}
    assert for_guest({**ours, "A": "b"}) == {"A": "b"}
