"""config.json from anybody: read, or refused in one sentence that names the file and the field."""

import json
from pathlib import Path
from typing import Any

import pytest

from shimd import oci
from shimd.errors import InvalidArgument

GOOD: dict[str, Any] = {"root": {"path": "rootfs"}, "process": {"args": ["/app"], "cwd": "/", "env": ["A=1"]}}


def load(directory: Path, config: object) -> oci.Spec:
    text = config if isinstance(config, str) else json.dumps(config)
    (directory / "config.json").write_text(text)
    return oci.load_spec(directory)


def test_good(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD)["process"]["args"] == ["/app"]


@pytest.mark.parametrize("name", oci.INITS)
def test_an_init_process_of_the_engines_is_left_out(tmp_path: Path, name: str) -> None:
    """With its mount; not an image's own, nor what only looks so."""
    mounts = [{"destination": "/data"}, {"destination": name, "type": "bind"}]
    asked = {**process(args=[name, "--", "/app", "--", "x"]), "mounts": mounts}
    found = load(tmp_path, asked)
    assert (found["process"]["args"], found["mounts"]) == (["/app", "--", "x"], mounts[:1])
    assert found["process"]["env"] == ["A=1"]
    others = [{**asked, "mounts": mounts[:1]}, *({**process(args=args), "mounts": mounts} for args in NO_INITS)]
    for other in others:
        assert load(tmp_path, other) == other


NO_INITS = [
    ["/app", "--", "x"],
    ["/sbin/docker-init"],
    ["/sbin/docker-init", "--"],
    ["/sbin/docker-init", "-s", "/app"],
]


def process(**more: object) -> dict[str, Any]:
    return {**GOOD, "process": {**GOOD["process"], **more}}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ({"process": GOOD["process"]}, "root.path is missing"),
        ({**GOOD, "root": {}}, "root.path is missing"),
        ({**GOOD, "root": "rootfs"}, "root.path is missing"),
        ({**GOOD, "linux": []}, "linux must be an object"),
        ({**GOOD, "linux": {"namespaces": {}}}, "linux.namespaces must be a list of objects"),
        ({**GOOD, "linux": {"namespaces": ["pid"]}}, "linux.namespaces must be a list of objects"),
        ({**GOOD, "linux": {"resources": []}}, "linux.resources must be an object"),
        ({**GOOD, "mounts": {}}, "mounts must be a list of objects"),
        ({**GOOD, "mounts": ["/data"]}, "mounts must be a list of objects"),
        ({"root": {"path": "rootfs"}}, "process is missing"),
        ({**GOOD, "process": []}, "process is missing"),
        (process(args=[]), "process.args must be a list of at least one string"),
        (process(args="app"), "process.args must be"),
        (process(args=[1]), "process.args must be"),
        (process(env="A=1"), "process.env must be a list of strings"),
        (process(env=[1]), "process.env must be"),
        (process(cwd="data"), "process.cwd must be an absolute path"),
        (process(cwd=None), "process.cwd must be"),
    ],
)
def test_bad(tmp_path: Path, config: object, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load(tmp_path, config)
    assert words in str(caught.value)
    assert str(tmp_path / "config.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"config\.json does not exist"):
        oci.load_spec(tmp_path)


def test_not_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(InvalidArgument, match="cannot be read"):
        oci.load_spec(tmp_path)
