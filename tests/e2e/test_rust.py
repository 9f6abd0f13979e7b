"""Components from Rust, as cargo makes them for WASI: a server (wstd), a command (the standard library alone) and an
application of spin-sdk.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shimd.engines import componentize
from tests.components import rust
from tests.e2e import images, spin_app
from tests.e2e.box import Box, until
from tests.e2e.containerd import LAUNCHERS
from tests.e2e.http_app import IMAGE, App, answers, archive, free_port, on_wasmtime, running, with_one_under_way
from tests.e2e.spin_app import SPIN, on_spin, on_the_newest

componentizes = pytest.mark.skipif(
    not componentize.version(), reason="native/componentize is built by cargo: run tools/setup"
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    directory = tmp_path_factory.mktemp("app")
    (directory / "note").write_text("a note")
    with running(rust.component("server"), directory / "log", f"--dir={directory}::/data:ro", COLOUR="red") as app:
        yield app


def test_an_answer(app: App) -> None:
    answer = app.get("/")
    assert (answer.status_code, answer.text) == (200, "hello from Rust\n")
    assert answer.headers["content-type"] == "text/plain"
    assert app.get("/nowhere").status_code == 404


def test_what_a_guest_knows_of_a_request(app: App) -> None:
    url = f"http://{app.address}/about?a=1"
    for _ in range(3):
        lines = httpx.put(url, headers={"x-one": "1"}, trust_env=False).text.splitlines()
        assert {"method PUT", f"uri {url}", "header x-one: 1", "env COLOUR=red"} <= set(lines)
        assert "requests 1" in lines, "each request has an instance of its own"


@pytest.mark.parametrize("size", [0, 1, 65536, 5_000_000])
def test_bodies(app: App, size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    for path, expected in (("/echo", data), ("/count", str(size).encode())):
        assert httpx.post(f"http://{app.address}{path}", content=data, timeout=30, trust_env=False).content == expected


def test_a_response_streams(app: App) -> None:
    """Lines come as they are written, not at the end."""
    times = app.lines("/ticks")
    assert [line for line, _at in times] == ["0", "1", "2"]
    assert times[-1][1] - times[0][1] > 0.3


def test_asking_another_server(app: App) -> None:
    """Which is the app itself, in another instance."""
    answer = app.get(f"/ask?{app.address}/about")
    assert "header x-asked-by: Rust" in answer.text.splitlines()
    assert app.get(f"/ask?127.0.0.1:{free_port()}/").status_code == 502


def test_files(app: App) -> None:
    assert app.get("/note").text == "a note"


def test_a_panic_is_told_and_hurts_nobody_else(app: App) -> None:
    assert app.get("/panic").status_code == 500
    until(lambda: "on purpose" in app.said(), "the panic's message")
    with pytest.raises(httpx.RemoteProtocolError):
        app.get("/broken")
    assert app.get("/").status_code == 200


def test_a_guest_that_takes_too_long(tmp_path: Path) -> None:
    with running(rust.component("server"), tmp_path / "log", SHIMD_HTTP_TIMEOUT="1") as app:
        assert app.get("/spin").status_code == 504
        assert app.get("/").text == "hello from Rust\n"
        assert app.end() == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_requests_under_way_are_finished(tmp_path: Path, processes: str) -> None:
    with running(rust.component("server"), tmp_path / "log", SHIMD_HTTP_PROCESSES=processes) as app:
        assert app.end_with_one_under_way("/ticks") == (["0", "1", "2"], 0)


@on_wasmtime
def test_a_server_by_ctr(box: Box, tmp_path: Path) -> None:
    box.ctr("images", "import", str(archive(tmp_path / "http.tar", rust.component("server"))))
    address = f"127.0.0.1:{free_port()}"
    flags = ("--net-host", "--env", f"WASMTIME_HTTP_PROXY_SOCKET_ADDR={address}")
    box.detach("server", flags=flags, image=IMAGE)
    until(lambda: answers(address), "the app to listen")
    assert httpx.get(f"http://{address}/note", trust_env=False).text == "a note\n"
    assert "env FROM_IMAGE=yes" in httpx.get(f"http://{address}/about", trust_env=False).text.splitlines()
    box.kill("server", "SIGTERM")
    box.wait_status("server", "STOPPED")
    assert box.delete("server") == 0


@componentizes
def test_a_server_that_is_a_core_module(tmp_path: Path) -> None:
    with running(rust.module("server"), tmp_path / "log") as app:
        assert app.get("/").text == "hello from Rust\n"
        assert app.get(f"/ask?{app.address}/").text == "hello from Rust\n"


def command(*words: object, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    start = [str(LAUNCHERS / "shimd"), "run", "--engine", "wasmtime"]
    return subprocess.run([*start, *map(str, words)], input=stdin, capture_output=True, text=True, timeout=60)


#: Words, exit code, what is written; a component knows of its exit only whether it went well (wasi:cli/exit).
DONE = {
    "arguments": (["echo", "a", "b c"], 0, "a b c\n"),
    "environment": (["env", "COLOUR"], 0, "blue\n"),
    "stdin": (["upper"], 0, "SOME TEXT"),
    "files": (["copy", "/files/from", "/files/to"], 0, "8\n"),
    "directories": (["list", "/files"], 0, "from\n"),
    "sleep": (["sleep", "50"], 0, "true\n"),
    "failure": (["fail"], 1, ""),
    "usage": (["nothing"], 1, ""),
    "panic": (["panic"], 134, ""),
    "error": (["copy", "/files/none", "/files/to"], 1, ""),
}


@pytest.mark.parametrize("form", ["component", "module"])
@pytest.mark.parametrize("what", DONE)
def test_a_command(tmp_path: Path, what: str, form: str) -> None:
    words, code, output = DONE[what]
    (tmp_path / "from").write_text("the file")
    program = rust.component("command") if form == "component" else rust.module("command")
    done = command(f"--dir={tmp_path}::/files", "--env=COLOUR=blue", program, *words, stdin="some text")
    if what == "usage" and form == "module":
        code = 2
    assert (done.returncode, done.stdout) == (code, output), done.stderr
    if what == "files":
        assert (tmp_path / "to").read_text() == "the file"
    if what == "panic":
        assert "on purpose" in done.stderr


@on_wasmtime
def test_a_command_by_ctr(box: Box, tmp_path: Path) -> None:
    """With a read-only root, of which a volume is writable, and an absolute link."""
    files = {"/app.wasm": rust.component("command").read_bytes(), "/data/note": b"a note\n"}
    contents = images.layer(files, ["tmp", "var"], {"/var/data": "/data"})
    images.save(tmp_path / "command.tar", [images.image(IMAGE, [contents], {"Entrypoint": ["/app.wasm"]})])
    box.ctr("images", "import", str(tmp_path / "command.tar"))
    hardened = ("--read-only", "--mount", "type=tmpfs,src=tmpfs,dst=/tmp,options=size=64k")
    for words, code, output in (
        (["copy", "/data/note", "/tmp/note"], 0, "7\n"),
        (["copy", "/var/data/note", "/tmp/note"], 0, "7\n"),
        (["copy", "/data/note", "/data/other"], 1, ""),
        (["fail"], 1, ""),
    ):
        flags = ("--rm", *hardened, "--runtime", box.runtime.type)
        done = box.ctr("run", *flags, IMAGE, "once", "/app.wasm", *words, check=False)
        assert (done.code, done.out) == (code, output), done.err


MANIFEST = """
spin_manifest_version = 2
[application]
name = "from-rust"
[variables]
greeting = { default = "hello" }
[[trigger.http]]
route = "/..."
component = "app"
[component.app]
source = "app.wasm"
variables = { greeting = "{{ greeting }}!" }
key_value_stores = ["default"]
sqlite_databases = ["default"]
allowed_outbound_hosts = ["http://127.0.0.1:*"]
files = [{ source = "assets", destination = "/mounted" }]
"""


@on_spin
def test_a_spin_application(box: Box, tmp_path: Path) -> None:
    run_spin(box, tmp_path, rust.component("spin"))


@on_the_newest
@on_spin
def test_more_than_one_process_in_a_container(box: Box, tmp_path: Path) -> None:
    """What is under way is finished, and the exit code is 0, though no process there may signal another."""
    files = {"/app.wasm": rust.component("spin").read_bytes(), "/assets/note": b"a note"}
    box.ctr("images", "import", str(spin_app.image(tmp_path / "spin.tar", SPIN.image, MANIFEST, files)))
    with spin_app.running(box, SHIMD_HTTP_PROCESSES="2") as app:
        assert {app.get("/").text for _ in range(20)} == {"hello from Spin in Rust\n"}


@on_wasmtime
def test_requests_under_way_are_finished_in_a_container(box: Box, tmp_path: Path) -> None:
    box.ctr("images", "import", str(archive(tmp_path / "http.tar", rust.component("server"))))
    address = f"127.0.0.1:{free_port()}"
    variables = (f"WASMTIME_HTTP_PROXY_SOCKET_ADDR={address}", "SHIMD_HTTP_PROCESSES=2")
    box.detach("server", flags=("--net-host", *(f"--env={it}" for it in variables)), image=IMAGE)
    until(lambda: answers(address), "the app to listen")
    lines = with_one_under_way(address, "/ticks", lambda: box.kill("server", "SIGTERM"))
    box.wait_status("server", "STOPPED")
    assert (lines, box.delete("server")) == (["0", "1", "2"], 0)


@componentizes
@on_the_newest
@on_spin
def test_a_spin_application_of_core_modules(box: Box, tmp_path: Path) -> None:
    """As ``spin build`` of Spin 2 and 3 leaves them."""
    run_spin(box, tmp_path, rust.module("spin"))


def run_spin(box: Box, tmp_path: Path, program: Path) -> None:
    files = {"/app.wasm": program.read_bytes(), "/assets/note": b"a note"}
    box.ctr("images", "import", str(spin_app.image(tmp_path / "spin.tar", SPIN.image, MANIFEST, files)))
    with spin_app.running(box, SPIN_VARIABLE_GREETING="good day") as app:
        check_spin(app)


def check_spin(app: spin_app.App) -> None:
    assert app.get("/").text == "hello from Spin in Rust\n"
    assert [app.get("/counter").text for _ in range(3)] == ["1", "2", "3"]
    assert app.get("/variable/greeting").text == "good day!"
    assert app.get("/variable/other").status_code == 500
    assert [app.get(f"/people/{name}").text for name in ("grace", "ada")] == ["grace", "ada grace"]
    assert app.get("/read/mounted/note").text == "a note"
    assert app.get(f"/fetch/{app.address}/variable/greeting").text == "good day!"
    assert app.get(f"/fetch/localhost:{app.address.rpartition(':')[2]}/").status_code == 502, "it is not allowed"
    assert httpx.post(f"http://{app.address}/shout", content="louder", trust_env=False).text == "LOUDER"
    assert "spin-path-info: /about" in app.get("/about").text.splitlines()
    until(lambda: "asked with GET" in app.output.read_text(), "what it prints")
    assert app.get("/nowhere").status_code == 404
    assert app.get("/panic").status_code == 500
    until(lambda: "on purpose" in app.output.read_text(), "the panic's message")
    assert app.get("/counter").text == "4"
