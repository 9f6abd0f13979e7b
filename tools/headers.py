"""Writes the headers of what is in C, from the Python tables that hold the same numbers: ``make headers``.

With ``--check``, as of ``make lint``, only sees whether they are what would be written.
"""

import sys
from enum import IntEnum, IntFlag
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from shimd.engine import EXIT_ENGINE, EXIT_TRAP  # noqa: E402 — after the path is set
from shimd.engines import wasmtime_config  # noqa: E402
from shimd.errors import Code  # noqa: E402
from shimd.linux import fork  # noqa: E402
from shimd.protocol import constants, keeper  # noqa: E402
from shimd.protocol.codec import encode  # noqa: E402
from shimd.protocol.worker import Error, Held, Ready  # noqa: E402

_HEAD = "/* Made by tools/headers.py; not to be edited. */\n#ifndef {guard}\n#define {guard}\n\n{body}\n#endif\n"
_END = b'"}'


def protocol() -> str:
    """Of the zygote: what it exchanges with the supervisor and the fork server."""
    code, message = 12345, ""
    start, code_at, rest = encode(Error(code, message)).removesuffix(_END).partition(str(code).encode())
    signal = 54321
    ready, signal_at, ready_end = encode(Ready([signal])).partition(str(signal).encode())
    lines = [
        f"enum {{ MAX_FDS = {constants.MAX_FDS}, CONTROL = {constants.CONTROL_FD}, JAIL = {constants.JAIL_FD}, "
        f"HIGH = {constants.HIGH_FD}, FAILED = {constants.EXIT_FAILED}, CALL_WORDS = {constants.CALL_WORDS}, "
        f"PING = {constants.ZYGOTE_PING} }};",
        _enum("", constants.Birth),
        _enum("CALL_", constants.SpecialCall),
        _enum("POLICY_", constants.Policy),
        f"enum {{ ROBUST_LIST = {fork.ROBUST_LIST}, ROBUST_HEAD = {fork.ROBUST_HEAD} }};",
        f"#define SAYS_HELD {_text(encode(Held()))}",
        f"#define SAYS_READY {_text(ready)}",
        f"#define SAYS_READY_END {_text(ready_end)}",
        f"#define SAYS_ERROR {_text(start)} {_text(b'%d')} {_text(rest)}",
        f"#define SAYS_END {_text(_END)}",
    ]
    assert code_at and signal_at
    return "\n".join(lines) + "\n"


def held() -> str:
    """Of the keeper: what it exchanges with the supervisor."""
    lines = [
        f"enum {{ PROTOCOL = {keeper.VERSION}, MAX_FDS = {constants.MAX_FDS}, LISTEN = {constants.LISTEN_FD} }};",
        f"enum {{ MAX_NAME = {keeper.MAX_NAME}, MAX_EXITS = {keeper.MAX_EXITS}, MAX_COMMAND = {keeper.MAX_COMMAND} }};",
        _enum("", keeper.Kind),
        f"enum {{ RESTARTS = {keeper.RESTARTS}, REMOVES = {keeper.REMOVES}, HANDS_OVER = {keeper.HANDS_OVER} }};",
    ]
    return "\n".join(lines) + "\n"


def engine() -> str:
    """Of engines' parts in C."""
    settings = [f"    SETTING({name}, {str(value).lower()})" for name, value in wasmtime_config.SETTINGS.items()]
    lines = [
        f"enum {{ EXIT_TRAP = {EXIT_TRAP}, EXIT_ENGINE = {EXIT_ENGINE}, DATA_LOSS = {int(Code.DATA_LOSS)}, "
        f"INVALID_ARGUMENT = {int(Code.INVALID_ARGUMENT)} }};",
        "#define WASMTIME_SETTINGS(SETTING) \\",
        " \\\n".join(settings),
    ]
    return "\n".join(lines) + "\n"


def _enum(prefix: str, table: type[IntEnum] | type[IntFlag]) -> str:
    return f"enum {{ {', '.join(f'{prefix}{one.name} = {one.value}' for one in table)} }};"


def _text(data: bytes) -> str:
    quoted = data.decode().replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


HEADERS = {
    "shimd/zygote/protocol.h": protocol,
    "shimd/keeper/protocol.h": held,
    "shimd/engines/constants.h": engine,
}


def main() -> int:
    stale = []
    for name, body in HEADERS.items():
        path = ROOT / name
        guard = "SHIMD_" + path.name.upper().replace(".", "_")
        text = _HEAD.format(guard=guard, body=body())
        if path.is_file() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
    if stale and "--check" in sys.argv[1:]:
        print(f"{', '.join(stale)}: not what the tables say; run make headers", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
