"""Components that are composed with one another: core modules in the text format, made components by wasm-tools."""

import hashlib
import sys
import tempfile
from functools import cache, partial
from pathlib import Path

from tests.alone import alone
from tests.components.build import CACHE, SPIN_4, kept, packages, run
from tests.components.rust import PACKAGE

SOURCE = Path(__file__).parent / "parts"
_LAYER = b"layer:"


@cache
def part(name: str) -> bytes:
    """The component of ``tests/components/parts/<name>.wat``, whose world is in ``parts.wit``: it is as small as it can
    be, and compiled in no time."""
    files = SOURCE / f"{name}.wat", SOURCE / "parts.wit"
    key = hashlib.sha256(repr((SPIN_4, PACKAGE)).encode() + b"".join(file.read_bytes() for file in files))
    text, core = (SOURCE / "parts.wit").read_text(), [str(SOURCE / f"{name}.wat")]
    return kept(f"part-{name}", key.digest(), partial(_make, text, name, core)).read_bytes()


def layer(kind: str) -> bytes:
    """Middleware of WASI 0.3: ``layer.wat`` says what it does by a letter."""
    found = part("layer")
    assert found.count(_LAYER) == 1
    return found.replace(_LAYER + b"o", _LAYER + kind.encode())


@cache
def importing(*interfaces: str) -> bytes:
    """A component that does nothing, and imports all of those interfaces."""
    imports = "".join(f"import {interface};\n" for interface in interfaces)
    with tempfile.TemporaryDirectory() as directory, alone(CACHE):
        made = Path(directory) / "made.wasm"
        _make(f"package test:importing;\nworld all {{\n{imports}export run: func();\n}}\n", "all", ["--dummy"], made)
        return made.read_bytes()


def _make(text: str, world: str, core: list[str], made: Path) -> None:
    tools, sdk = packages((PACKAGE,)), packages(SPIN_4)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    with tempfile.TemporaryDirectory() as directory:
        wit = Path(directory)
        (wit / "world.wit").write_text(text)
        (wit / "deps").symlink_to(sdk / f"lib/{version}/site-packages/spin_sdk/wit/deps")
        embed = ["embed", str(wit), "--world", world, *core, "-o", str(wit / "core.wasm")]
        for words in (embed, ["new", str(wit / "core.wasm"), "-o", str(made)]):
            run([str(tools / "bin/python"), str(tools / "bin/wasm-tools"), "component", *words])
