"""Symbolic links in images: they lead where they would for any program, and never out of the container."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e import guests, images
from tests.e2e.box import RUNTIMES, WASMER_SDK, Box
from tests.e2e.spin_app import on_the_newest
from tests.e2e.test_files import bind

WASM, NATIVE = "test.invalid/links:1", "test.invalid/links-native:1"
#: As Debian and Ubuntu have them, and some that no image should.
LINKS = {
    "/var/run": "/run",
    "/etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
    "/etc/localtime": "/usr/share/zoneinfo/UTC",
    "/lib64": "/usr/lib64",
    "/usr/lib64/back": "/etc",
    "/circle": "circle2",
    "/circle2": "/circle",
}
FILES = {"/usr/share/zoneinfo/UTC": b"TZif\n", "/etc/passwd": b"root:x:0:0::/:\n", "/note": b"a note\n"}
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture(scope="module")
def archive(programs: tuple[bytes, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    native, wasm = programs
    path = tmp_path_factory.mktemp("links") / "links.tar"
    images.save(path, [linked(NATIVE, "/app", native, LINKS), linked(WASM, "/app.wasm", wasm, LINKS)])
    return path


def linked(name: str, entry: str, program: bytes, links: dict[str, str]) -> images.Image:
    directories = {"var", "usr/lib64", "data", *guests.DIRECTORIES} - {path.lstrip("/") for path in links}
    layer = images.layer({entry: program, **FILES}, sorted(directories), links)
    return images.image(name, [layer], {"Entrypoint": [entry], "WorkingDir": "/"})


ALL = [replace(one, image=NATIVE if one.native else WASM) for one in [*RUNTIMES, WASMER_SDK]]
every = pytest.mark.parametrize("runtime", ALL, ids=lambda one: one.name, indirect=True)
shared = pytest.mark.parametrize("runtime", ALL[:-1], ids=lambda one: one.name, indirect=True)


@every
def test_an_absolute_link_of_the_image(box: Box, tmp_path: Path) -> None:
    """A pod's token where /var/run is a link, and a file that is one."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data/token").write_text("a token\n")
    (tmp_path / "token").symlink_to("..data/token")
    done = box.run("app", "read", f"{TOKEN}/token", flags=bind(tmp_path, TOKEN, "ro"))
    assert (done.code, done.out, done.err) == (0, "a token\n", "")
    assert box.run("app", "read", "/etc/localtime").out == "TZif\n"
    assert box.run("app", "read", "/lib64/back/passwd").out == FILES["/etc/passwd"].decode()


@every
def test_a_mount_onto_a_link_that_leads_to_nothing(box: Box, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    flags = bind(tmp_path / "resolv.conf", "/etc/resolv.conf", "ro")
    done = box.run("app", "read", "/etc/resolv.conf", flags=flags)
    assert (done.code, done.out, done.err) == (0, "nameserver 192.0.2.1\n", "")


@on_the_newest
@shared
def test_links_that_another_writes_lead_to_ones_own(box: Box, tmp_path: Path) -> None:
    """Into a volume: what they name is each container's own, and nothing of the node's."""
    (tmp_path / "own").symlink_to("/etc/passwd")
    (tmp_path / "node").symlink_to("/etc/hostname")
    (tmp_path / "up").symlink_to("../../../../../../../etc/hostname")
    box.detach("app", "sleep", 600, flags=bind(tmp_path, "/mnt", "rw")[1:])
    assert box.exec("app", "own", "read", "/mnt/own").out == FILES["/etc/passwd"].decode()
    for name in ("node", "up"):
        done = box.exec("app", name, "read", f"/mnt/{name}")
        assert (done.code, done.out) == (1, "")
        # Not each engine knows that what is above the root is the root.
        assert "No such file" in done.err or (name == "up" and box.runtime.name in ("wasmer", "wasmedge"))
    done = box.exec("app", "write", "write", "/mnt/own", "changed")
    assert (done.code, box.exec("app", "then", "read", "/note").out) == (0, "a note\n")
    assert box.exec("app", "see", "read", "/etc/passwd").out == "changed\n"


@on_the_newest
@shared
def test_links_in_a_circle(box: Box, tmp_path: Path) -> None:
    done = box.run("app", "read", "/circle/file")
    assert (done.code, done.out) == (1, "")
    done = box.run("app", "echo", "ran", flags=bind(tmp_path, "/circle", "ro"))
    assert (done.code != 0, done.out) == (True, "")
    assert "ymbolic link" in done.err  # of one's own: "too many levels of"


@on_the_newest
@pytest.mark.parametrize("link", [("/dev", "/proc"), ("/sys", "/proc"), ("/proc", "/data"), ("/dev", "/sys/kernel")])
@pytest.mark.parametrize("runtime", [ALL[0], ALL[2]], ids=lambda one: one.name, indirect=True)
def test_an_image_that_would_undo_masked_paths(
    box: Box, tmp_path: Path, programs: tuple[bytes, bytes], link: tuple[str, str]
) -> None:
    """As by a /dev that is /proc: no container of it starts. (The kernel's own sysfs has no files to be made in.)"""
    name, entry = ("native", "/app") if box.runtime.native else ("wasm", "/app.wasm")
    path = tmp_path / "evil.tar"
    program = programs[0 if box.runtime.native else 1]
    images.save(path, [linked("test.invalid/evil:1", entry, program, dict([link]))])
    box.containerd.import_image(path, box.namespace)
    done = box.run("app", "echo", "ran", image="test.invalid/evil:1")
    assert (done.code != 0, done.out) == (True, ""), name
    if not box.runtime.reference:
        assert f"mount {link[0]}" in done.err and "link" in done.err
        assert len([line for line in done.err.splitlines() if line.startswith("ctr: ")]) == 1
