"""Which applications ``shimd run`` is given, what they are told, and what they are made of."""

import os
from pathlib import Path

import anyio
import pytest

from shimd.cli.application import LocalApplication
from shimd.errors import InvalidArgument, NotFound

MANIFEST = """
spin_manifest_version = 2
[[trigger.http]]
component = { source = "inline.wasm" }
[component.one]
source = "one.wasm"
files = ["assets/*.txt", { source = "mounted", destination = "/m" }, 7]
[component.two]
source = { url = "x" }
"""


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "engine"),
    [
        ("spin.toml", "spin_manifest_version = 2", "spin"),
        ("other.toml", 'spin_manifest_version = "1"', "spin"),
        ("old.toml", 'spin_version = "1"', "spin"),
        ("slightfile.toml", 'specversion = "0.2"', "slight"),
    ],
)
def test_manifests(tmp_path: Path, name: str, text: str, engine: str) -> None:
    (tmp_path / name).write_text(text)
    assert LocalApplication.of(f"{tmp_path}/{name}") == LocalApplication(engine, f"{tmp_path}/{name}")


def test_directories(tmp_path: Path) -> None:
    """Whatever is wrong with the manifest is told of by who reads it."""
    with pytest.raises(InvalidArgument, match=r"is a directory without a spin\.toml or a slightfile\.toml"):
        LocalApplication.of(str(tmp_path))
    write(tmp_path, slightfile_toml="= =")
    assert LocalApplication.of(str(tmp_path)).engine == "slight"
    write(tmp_path, spin_toml="= =")
    assert LocalApplication.of(str(tmp_path)) == LocalApplication("spin", f"{tmp_path}/spin.toml")


def test_what_is_none(tmp_path: Path) -> None:
    write(tmp_path, a_toml="x = 1", b_toml="= =")
    with pytest.raises(InvalidArgument, match="has neither spin_manifest_version"):
        LocalApplication.of(f"{tmp_path}/a.toml")
    with pytest.raises(InvalidArgument, match="is not TOML"):
        LocalApplication.of(f"{tmp_path}/b.toml")
    with pytest.raises(NotFound):
        LocalApplication.of(f"{tmp_path}/c.toml")


@pytest.mark.parametrize(
    ("engine", "listen", "ours", "expected"),
    [
        ("spin", "", "", "SPIN_HTTP_LISTEN_ADDR=127.0.0.1:3000"),
        ("spin", "", "0.0.0.0:1", "SPIN_HTTP_LISTEN_ADDR=0.0.0.0:1"),
        ("spin", "8080", "0.0.0.0:1", "SPIN_HTTP_LISTEN_ADDR=127.0.0.1:8080"),
        ("spin", "[::]:8080", "", "SPIN_HTTP_LISTEN_ADDR=[::]:8080"),
        ("slight", "", "", "SLIGHT_HTTP_LISTEN_ADDR="),
        ("slight", "8080", "", "SLIGHT_HTTP_LISTEN_ADDR=127.0.0.1:8080"),
    ],
)
def test_where_it_listens(monkeypatch: pytest.MonkeyPatch, engine: str, listen: str, ours: str, expected: str) -> None:
    monkeypatch.delenv("SPIN_HTTP_LISTEN_ADDR", raising=False)
    if ours:
        monkeypatch.setenv("SPIN_HTTP_LISTEN_ADDR", ours)
    monkeypatch.setenv("SPIN_VARIABLE_X", "from the shell")
    variables = LocalApplication(engine, "").variables(listen)
    assert expected in variables
    assert "SPIN_VARIABLE_X=from the shell" in variables


def test_what_it_is_made_of(tmp_path: Path) -> None:
    write(tmp_path, spin_toml=MANIFEST, one_wasm="1", inline_wasm="2", assets__a_txt="", assets__b_md="", x_wasm="")
    write(tmp_path, mounted__note="", mounted__deep="", _env="")
    application = LocalApplication.of(str(tmp_path))
    found = {Path(path).relative_to(tmp_path).as_posix() for path in application.stamps()}
    expected = {
        "spin.toml",
        ".env",
        "one.wasm",
        "inline.wasm",
        "assets/a.txt",
        "mounted/note",
        "mounted/deep",
    }
    assert found == expected


@pytest.mark.parametrize(
    "text",
    ["= =", "component = 1\ntrigger = 2", "[component]\na = 1\n[trigger]\nhttp = [1]", "[component.a]\nfiles = 1"],
)
def test_a_manifest_that_is_wrong_is_watched(tmp_path: Path, text: str) -> None:
    write(tmp_path, spin_toml=text)
    assert list(LocalApplication.of(str(tmp_path)).stamps()) == [f"{tmp_path}/spin.toml"]


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_a_change(tmp_path: Path, change: str) -> None:
    write(tmp_path, spin_toml=MANIFEST, one_wasm="1", assets__a_txt="a")
    application = LocalApplication.of(str(tmp_path))
    before = application.stamps()
    assert application.stamps() == before
    match change:
        case "changed":
            write(tmp_path, one_wasm="another")
        case "added":
            write(tmp_path, assets__b_txt="b")
        case "removed":
            (tmp_path / "assets" / "a.txt").unlink()
    anyio.run(application.change, before)


@pytest.mark.parametrize("files", ['[{ source = ".", destination = "/" }]', '["**"]', '["."]'])
def test_what_it_keeps_itself_is_no_change(tmp_path: Path, files: str) -> None:
    """It would be started again and again, by what it writes."""
    write(tmp_path, spin_toml=f"spin_manifest_version = 2\n[component.a]\nsource = 'a.wasm'\nfiles = {files}", a_txt="")
    application = LocalApplication.of(str(tmp_path))
    before = application.stamps()
    assert f"{tmp_path}/a.txt" in {os.path.normpath(path) for path in before}
    (tmp_path / ".spin").mkdir()
    (tmp_path / ".spin" / "sqlite_key_value.db-wal").touch()
    assert application.stamps() == before
