"""The imports of ``wasi:http/proxy`` and of ``wasi:cli/command``, for one app."""

from collections.abc import Mapping
from typing import Any

from shimd.engine import Invocation
from shimd.wasi import cli, clocks, filesystem, io, random, sockets
from shimd.wasi.http.types import HttpTypes


class TypesOnly:
    """An interface of types only."""


def providers(invocation: Invocation, outgoing: object) -> Mapping[str, object]:
    """Returns the providers, by interface, of all that an invocation grants. ``outgoing`` sends HTTP requests."""
    terminal = cli.Terminal()
    no_sockets = sockets.NoSockets()
    found: dict[str, Any] = {
        "wasi:cli/environment": cli.Environment(invocation.env, invocation.args, invocation.cwd),
        "wasi:cli/exit": cli.ExitInterface(),
        "wasi:cli/stdin": cli.Stdin(),
        "wasi:cli/stdout": cli.Stdout(),
        "wasi:cli/stderr": cli.Stderr(),
        "wasi:cli/terminal-input": terminal,
        "wasi:cli/terminal-output": terminal,
        "wasi:cli/terminal-stdin": terminal,
        "wasi:cli/terminal-stdout": terminal,
        "wasi:cli/terminal-stderr": terminal,
        "wasi:clocks/monotonic-clock": clocks.MonotonicClock(),
        "wasi:clocks/wall-clock": clocks.WallClock(),
        "wasi:filesystem/types": filesystem.FilesystemTypes(),
        "wasi:filesystem/preopens": filesystem.Preopens(invocation.preopens, invocation.contained),
        "wasi:http/types": HttpTypes(),
        "wasi:http/outgoing-handler": outgoing,
        "wasi:io/error": TypesOnly(),
        "wasi:io/poll": io.Poll(),
        "wasi:io/streams": io.Streams(),
        "wasi:random/random": random.Random(),
        "wasi:random/insecure": random.InsecureRandom(),
        "wasi:random/insecure-seed": random.InsecureSeed(),
        "wasi:sockets/network": TypesOnly(),
        "wasi:sockets/instance-network": sockets.Network(),
        "wasi:sockets/tcp": TypesOnly(),
        "wasi:sockets/udp": TypesOnly(),
        "wasi:sockets/tcp-create-socket": no_sockets,
        "wasi:sockets/udp-create-socket": no_sockets,
        "wasi:sockets/ip-name-lookup": no_sockets,
    }
    return found
