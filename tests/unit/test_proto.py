"""shimd/api is what proto/ gives, and what shimd needs of it is cheap to import."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    pytest.importorskip("betterproto2_compiler", reason="betterproto2-compiler is not installed")
    spec = importlib.util.spec_from_file_location("proto_tool", ROOT / "tools" / "proto.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without_layout(text: str) -> str:
    """Formatters differ between versions; what they format must not."""
    return ast.dump(ast.parse(text))


def test_the_generated_code_is_up_to_date(tool: ModuleType, tmp_path: Path) -> None:
    tool.generate(tmp_path)
    fresh, committed = tool.contents(tmp_path), tool.contents(ROOT / "shimd" / "api")
    assert fresh.keys() == committed.keys()
    stale = [name for name in fresh if without_layout(fresh[name]) != without_layout(committed[name])]
    assert stale == [], "run tools/proto.py"


@pytest.mark.parametrize(
    ("unwanted", "modules"),
    [
        ("google.protobuf", "shimd.api.containerd.task.v3, shimd.api.containerd.events"),
        ("grpclib", "shimd.api.containerd.events, shimd.api.io.containerd.cgroups.v2, shimd.ttrpc"),
        ("h2", "shimd.api.containerd.events, shimd.api.io.containerd.cgroups.v2, shimd.ttrpc"),
        ("dateutil", "shimd.supervisor.serve"),
        ("grpclib", "shimd.cli.commands, shimd.cli.run"),
        ("betterproto2", "shimd.cli.commands, shimd.cli.run"),
        ("rich", "shimd.cli.commands, shimd.cli.run"),
    ],
)
def test_nothing_heavy_is_imported(unwanted: str, modules: str) -> None:
    program = f"import sys, {modules}; sys.exit({unwanted!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_ttrpc_stands_alone() -> None:
    """It imports nothing else of shimd, and no protobuf library."""
    program = (
        "import sys, shimd; before = set(sys.modules); import shimd.ttrpc, shimd.ttrpc.testing\n"
        "new = set(sys.modules) - before\n"
        "bad = [m for m in new if m.startswith('shimd.') and not m.startswith('shimd.ttrpc')]\n"
        "sys.exit(str(bad) if bad or {'betterproto2', 'grpclib', 'google'} & new else 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
