"""Kubernetes' own validation suite of runtimes: what passes with runc's handler passes with shimd's."""

from pathlib import Path

from tests.e2e.critest import compare


def test_what_passes_with_runc_passes_with_shimd(tmp_path: Path) -> None:
    both = compare(tmp_path)
    passed = {
        handler: {spec for spec, outcome in specs.items() if outcome.status == "passed"}
        for handler, specs in both.items()
    }
    assert len(passed["runc"]) > 70, "the comparison means nothing if nothing ran"
    missing = {spec: both["wasmtime"].get(spec) for spec in passed["runc"] - passed["wasmtime"]}
    assert not missing
