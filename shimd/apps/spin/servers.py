"""What connects to servers for components that run natively: a process beside theirs (:mod:`shimd.component.bridge`).

Its interfaces are those that components of the portable host have (:mod:`.outbound`).
"""

from collections.abc import Collection, Mapping

from shimd.apps.http.engine import OPTIONAL
from shimd.apps.spin.allowed import AllowedHosts
from shimd.apps.spin.clients import Clients
from shimd.apps.spin.networking import Networking
from shimd.apps.spin.outbound.interfaces import servers
from shimd.component.bridge.process import Process
from shimd.component.providers import Providers
from shimd.engines.loading import load, load_if_there
from shimd.wasi.trust import BuiltIn, Trust

#: What is looked for at first use.
_LOADED = ("concurrent.futures.thread", "encodings.idna")


class ServersProcess:
    """One that is to be."""

    def __init__(
        self,
        kinds: Collection[str],
        allowed: Mapping[str, AllowedHosts],
        networking: Networking,
        env: Mapping[str, str],
    ) -> None:
        """Made before the container is entered: libraries are out of sight then.

        :param kinds: the protocols that it has to have: of :data:`shimd.apps.spin.networking.SERVERS`
        :param allowed: by component
        :param env: the container's: where its certificates are
        """
        load(_LOADED)
        load_if_there(OPTIONAL)
        self._clients, self._allowed = Clients(kinds, Trust(BuiltIn(), env), networking), allowed
        self._process = Process()

    @property
    def ask(self) -> int:
        """The descriptor that the components' host asks for connections over."""
        return self._process.ask

    def start(self) -> None:
        """Called inside the container, by the process that becomes the components' host.

        :raises EngineError: there may be no further process
        """
        self._process.start(self._provide)

    def _provide(self, component: str) -> Providers:
        return servers(self._clients, self._allowed[component])
