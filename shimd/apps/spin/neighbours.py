"""The components of an application as another of them reaches them: by ``http://NAME.spin.internal``, and by its own
routes where a request names no host (``http://self``)."""

from functools import partial

from shimd.apps.spin.allowed import CHAINED, AllowedHosts, split
from shimd.apps.spin.application import SpinServer
from shimd.component.results import Case, Err
from shimd.wasi.http.in_process import AsgiApplication
from shimd.wasi.http.outgoing import DENIED

#: What libraries send that need a host: of requests, while the list of hosts has ``self``, too.
_SELF = ("", "self.alt")


class Neighbours:
    """What one component reaches without a network."""

    def __init__(self, allowed: AllowedHosts) -> None:
        self._allowed = allowed
        self.server: SpinServer | None = None
        """``None`` until it serves, and where no HTTP trigger is."""

    def __call__(self, scheme: str, authority: str) -> AsgiApplication | None:
        """Returns what answers a request; ``None``: it is for another server.

        :raises Err: it is not allowed, or nobody is there
        """
        host, port = split(scheme, authority)
        if host in _SELF:
            if not self._allowed.allows_self():
                raise DENIED
            return self._found()
        if not host.endswith(CHAINED):
            return None
        if not self._allowed.allows(scheme, host, port):
            raise DENIED
        id = host.removesuffix(CHAINED)
        if not self._found().has(id):
            raise Err(Case("destination-not-found"))
        return partial(self._found().call, id)

    def _found(self) -> SpinServer:
        if self.server is None:
            raise Err(Case("destination-not-found"))
        return self.server
