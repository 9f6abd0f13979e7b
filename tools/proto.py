"""Generate ``shimd/api`` from ``proto/``: messages, and services for grpclib, by betterproto2.

    python tools/proto.py            write shimd/api anew
    python tools/proto.py --check    exit 1 if shimd/api is not what proto/ gives

Needs the ``dev`` extra. Never run it, or any Python, with the working directory inside ``shimd/api``: the generated
packages ``types`` and ``io`` would hide the standard library's.
"""

import os
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
API = ROOT / "shimd" / "api"
OPTIONS = "client_generation=async,server_generation=async"

#: The compiler imports all that generated code may need and drops what is not used, by name. It thinks this one is,
#: where a message is called Descriptor; the package (protobuf) is none of our dependencies.
STRAY_IMPORT = "from google.protobuf.descriptor import Descriptor\n"

#: Of the code for Timestamp: what only reading JSON takes, which the daemon never does, and dateutil is a MiB of it.
HEAVY_IMPORT = "import dateutil.parser\n"
HEAVY_USE = "            dt = dateutil.parser.isoparse(value)\n"


def generate(target: Path) -> None:
    """Compile every file below ``proto/`` into the directory ``target``, which exists and is empty.

    :raises RuntimeError: protoc refused a file (it said why on stderr)
    """
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # the plugin, ruff
    includes = [f"-I{PROTO}", f"-I{files('grpc_tools') / '_proto'}"]
    plugin = [f"--python_betterproto2_out={target}", f"--python_betterproto2_opt={OPTIONS}"]
    if protoc.main(["protoc", *includes, *plugin, *sources]) != 0:
        raise RuntimeError("protoc failed")
    for path in target.rglob("*.py"):
        text = path.read_text().replace(STRAY_IMPORT, "")
        if HEAVY_USE in text:
            text = text.replace(HEAVY_IMPORT, "").replace(HEAVY_USE, f"            {HEAVY_IMPORT}\n{HEAVY_USE}")
        path.write_text(text)


def contents(directory: Path) -> dict[str, str]:
    """Text of every generated file, by its path below ``directory``."""
    paths = [path for path in directory.rglob("*") if path.is_file() and path.suffix in (".py", ".typed")]
    return {str(path.relative_to(directory)): path.read_text() for path in paths}


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / "api"  # with ordinary permissions, unlike scratch itself
        fresh.mkdir()
        generate(fresh)
        if "--check" in sys.argv[1:]:
            new, old = contents(fresh), contents(API)
            stale = sorted(name for name in new.keys() | old.keys() if new.get(name) != old.get(name))
            print("\n".join(f"shimd/api/{name} is not what proto/ gives" for name in stale), end="\n" if stale else "")
            return 1 if stale else 0
        shutil.rmtree(API, ignore_errors=True)
        shutil.copytree(fresh, API)
    return 0


if __name__ == "__main__":
    sys.exit(main())
