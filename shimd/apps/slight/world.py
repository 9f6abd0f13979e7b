"""The interfaces of Slight 0.5, and the objects that provide them to guests."""

from collections.abc import Mapping
from functools import cache
from importlib import resources

from shimd.apps.slight.blobs import BlobStore
from shimd.apps.slight.configs import Configs
from shimd.apps.slight.http_client import HttpClient
from shimd.apps.slight.http_server import HttpServerProvider
from shimd.apps.slight.keyvalue import Keyvalue
from shimd.apps.slight.locking import DistributedLocking
from shimd.apps.slight.messaging import Messaging
from shimd.apps.slight.secrets import SecretStores
from shimd.apps.slight.slightfile import Slightfile
from shimd.apps.slight.sql import Sql
from shimd.engines.slight_names import NAMES
from shimd.wasi.trust import Trust
from shimd.wit.host import Provided
from shimd.wit.resolve import ResolvedFunction, functions
from shimd.wit.syntax import Interface, parse


@cache
def interface(name: str) -> Interface:
    """Parse an interface's ``.wit`` file, once."""
    folder = resources.files("shimd.apps.slight") / "interfaces"
    return parse(name, lambda name: (folder / f"{name}.wit").read_text())


def load() -> None:
    """Read all of them, to have them at hand."""
    for name in ("http-handler", "http-server-export", *NAMES):
        functions(interface(name))


@cache
def init() -> ResolvedFunction:
    """Returns the type of the export that starts the server."""
    return functions(interface("http-server-export"))[0]


@cache
def handler() -> ResolvedFunction:
    """Returns the type of a request handler's export."""
    return functions(interface("http-handler"))[0]


def provided(
    slightfile: Slightfile, stores: SecretStores, server: HttpServerProvider, trust: Trust, directory: str
) -> Mapping[str, Provided]:
    """Returns the providers, by interface; a guest may import all of them, whatever its slightfile has."""
    providers = {
        "blob-store": BlobStore(),
        "configs": Configs(slightfile, stores),
        "distributed-locking": DistributedLocking(slightfile, trust),
        "http-client": HttpClient(trust),
        "http-server": server,
        "keyvalue": Keyvalue(slightfile, directory),
        "messaging": Messaging(slightfile, directory),
        "sql": Sql(slightfile),
    }
    return {name: Provided(interface(name), provider) for name, provider in providers.items()}
