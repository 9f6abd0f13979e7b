"""A node set up, used, examined and cleared again: with a real containerd, below a directory of its own."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shimd.engines.registry import engine_names, lacking
from tests.e2e import guests, leftovers
from tests.e2e.box import WASM, until
from tests.e2e.containerd import LAUNCHERS, SYSTEM, Containerd, Version, running
from tests.e2e.cri import CriContainerd, run_pod
from tests.e2e.test_cri import ended, left, pod_archive, version
from tests.unit.node.rancher import Node as Rancher

__all__ = ["pod_archive", "version"]


class Bare(CriContainerd):
    """A node that has never heard of shimd, but for what ``shimd install`` puts below its directory."""

    def __init__(self, version: Version, directory: Path) -> None:
        super().__init__(version, directory)
        self.env["PATH"] = f"{directory}/usr/local/bin:{version.programs}:{SYSTEM}"
        kept = [part for part in self._config.read_text().split("[plugins") if "wasm" not in part]
        self._config.write_text("[plugins".join(kept))

    def shimd(
        self, *arguments: object, check: bool = True, program: Path = LAUNCHERS / "shimd"
    ) -> subprocess.CompletedProcess[str]:
        command = [str(program), *map(str, arguments)]
        env = {**self.env, "CONTAINERD_ADDRESS": str(self.address)}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=check)

    def set_up(
        self, command: str, *flags: str, program: Path = LAUNCHERS / "shimd"
    ) -> subprocess.CompletedProcess[str]:
        return self.shimd(command, "--root", self.directory, "--config", self._config, *flags, program=program)


@pytest.fixture
def bare(version: Version, pod_archive: Path) -> Iterator[Bare]:
    with running(version, Bare) as node:
        node.import_image(pod_archive, "k8s.io")
        yield node


def files(directory: Path) -> dict[str, bytes | str]:
    """What lies in the directories that are set up."""
    found = [path for name in ("usr", "etc") for path in (directory / name).rglob("*") if not path.is_dir()]
    links: dict[str, bytes | str] = {str(path): os.readlink(path) for path in found if path.is_symlink()}
    return links | {str(path): path.read_bytes() for path in found if not path.is_symlink()}


def test_from_a_bare_node_and_back(bare: Bare, tmp_path: Path) -> None:
    before = bare._config.read_bytes()
    shown = bare.set_up("install", "--dry-run").stdout
    assert '+runtime_type = "io.containerd.wasmtime.v1"' in shown
    assert (bare._config.read_bytes(), files(bare.directory)) == (before, {})

    bare.set_up("install")
    assert bare.set_up("install").stdout.startswith("nothing to do")
    bare.restart()
    until(lambda: bare.crictl("pods", check=False).code == 0, "CRI to answer")
    for runtime in WASM:
        pod = run_pod(bare, tmp_path / runtime.name, runtime.handler, runtime.name)
        pod.start("app", runtime.image)
        assert ended(pod, "app")["exitCode"] == 0
        assert pod.log("app") == "hello from app\n"
        pod.remove()
    native = run_pod(bare, tmp_path / "runc", "runc", "runc")
    native.remove()

    bare.set_up("uninstall", program=bare.directory / "usr/local/bin/shimd")  # the link that install made
    assert (bare._config.read_bytes(), files(bare.directory)) == (before, {})
    assert bare.set_up("uninstall").stdout == "nothing to do\n"
    assert not leftovers.settled(lambda: left(bare))


def test_tables_that_k3s_writes(bare: Bare, tmp_path: Path) -> None:
    """A shim as runc's replacement, for what it finds on its PATH: runc is it, and cgroups are as the table says."""
    base = Rancher(tmp_path, 2 if bare.version.name == "debian" else 3, systemd=False).base(["wasmtime"])
    tables = base.partition("SystemdCgroup = false\n")[2].replace("/usr/local", f"{bare.directory}/usr/local")
    bare._config.write_text(bare._config.read_text() + tables)
    bare.set_up("install")
    assert bare._config.read_text().count("wasmtime.v1") == 1
    bare.restart()
    until(lambda: bare.crictl("pods", check=False).code == 0, "CRI to answer")
    pod = run_pod(bare, tmp_path / "pod", "wasmtime", "k3s")
    pod.start("app", guests.WASM)
    pod.start("native", guests.NATIVE)
    for name in ("app", "native"):
        assert ended(pod, name)["exitCode"] == 0
    pod.remove()
    bare.set_up("uninstall")


def test_doctor(bare: Bare) -> None:
    """Tells what is missing, and after install that all is well: with an app run on each engine."""
    sick = bare.shimd("doctor", "--json", check=False)
    found = {finding["subject"]: finding for finding in json.loads(sick.stdout)}
    assert sick.returncode == 1
    assert found["launcher wasmtime"]["level"] == found["an app on wasmtime"]["level"] == "problem"
    assert found["launcher wasmtime"]["remedy"] == "shimd install"
    assert found["containerd"]["level"] == "ok"

    bare.set_up("install")
    bare.restart()
    well = bare.shimd("doctor", "--json")
    found = {finding["subject"]: finding for finding in json.loads(well.stdout)}
    assert {finding["level"] for finding in found.values()} <= {"ok", "warning"}
    assert found["an app on wasmer"]["found"] == found["an app on wasmtime"]["found"] == "ran in a container"
    assert found["engine wasmedge"]["level"] == ("warning" if lacking("wasmedge") else "ok")
    assert ("an app on wasmedge" in found) != bool(lacking("wasmedge"))
    assert "✓ an app on wasmtime: ran in a container" in bare.shimd("doctor").stdout
    bare.set_up("uninstall")


def test_doctor_without_containerd(version: Version, tmp_path: Path) -> None:
    done = subprocess.run(
        [LAUNCHERS / "shimd", "doctor"],
        env={"PATH": SYSTEM, "CONTAINERD_ADDRESS": str(tmp_path / "none"), "SHIMD_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "✗ containerd: no socket" in done.stdout
    assert "→ start containerd" in done.stdout


def test_a_program_that_is_not_installed(tmp_path: Path, containerd: Containerd) -> None:
    done = subprocess.run(
        [LAUNCHERS / "shimd", "install", "--root", tmp_path, "--runtime", "python"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"shimd: there is no runtime python (there are {', '.join(engine_names())})\n"
    assert list(tmp_path.iterdir()) == []
