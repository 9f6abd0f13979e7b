"""Spin applications, from an image with a ``/spin.toml``: made with spin-sdk, run by ``ctr`` and in pods."""

import os
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from shimd.engines.wasmtime import NATIVE
from tests.e2e import guests, images
from tests.e2e.box import RUNTIMES, Box, until
from tests.e2e.containerd import Containerd
from tests.e2e.http_app import answers, free_port
from tests.e2e.spin_app import NO_PROGRAM, SPIN, App, image, on_spin, on_the_newest, running

MANIFEST = """
spin_manifest_version = 2
[application]
name = "everything"
version = "1.2.3"

[variables]
greeting = { default = "hello" }
secret = { required = true }
host = { default = "127.0.0.1" }

[[trigger.http]]
route = "/main/..."
component = "main"
[[trigger.http]]
route = "/users/:id/about"
component = "main"
[[trigger.http]]
route = "/other/..."
component = "other"
[[trigger.http]]
route = { private = true }
component = "hidden"

[component.main]
source = "app.wasm"
environment = { COLOUR = "green" }
variables = { greeting = "{{ greeting }}, {{secret}}!", plain = "as it is" }
allowed_outbound_hosts = ["http://{{ host }}:*"]
key_value_stores = ["default"]
sqlite_databases = ["default"]
files = ["assets/**/*", { source = "shared", destination = "/mounted" }]
exclude_files = ["assets/hidden.txt"]

[component.other]
source = "app.wasm"
[component.hidden]
source = "app.wasm"
"""
FILES = {
    "/assets/index.html": b"<h1>hello</h1>",
    "/assets/deep/er.txt": b"deeper",
    "/assets/hidden.txt": b"hidden",
    "/shared/note": b"a note",
    "/secret": b"not a component's",
}
LINKS = {"/assets/link": "/shared/note", "/shared/deep": "/assets/deep"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes the place of the standard images."""
    return image(tmp_path_factory.mktemp("spin") / "spin.tar", SPIN.image, MANIFEST, FILES, LINKS)


@pytest.fixture
def app(box: Box) -> Iterator[App]:
    with running(box) as app:
        yield app


@on_spin
def test_an_application(app: App) -> None:
    """One container for all of it: an application takes a while to start."""
    check_routes(app)
    check_variables(app)
    check_key_values(app)
    check_sqlite(app)
    check_files(app)
    check_outbound(app)
    check_what_is_not_there(app)


def check_routes(app: App) -> None:
    about = app.value("/main/about?x=1")
    assert about["uri"] == "/main/about?x=1"
    assert about["headers"] == {
        "spin-path-info": "/about",
        "spin-full-url": f"http://{app.address}/main/about?x=1",
        "spin-matched-route": "/main/...",
        "spin-raw-component-route": "/main/...",
        "spin-component-route": "/main",
        "spin-base-path": "/",
        "spin-client-addr": about["headers"]["spin-client-addr"],
    }
    assert about["environ"]["COLOUR"] == "green"
    assert "SPIN_VARIABLE_SECRET" not in about["environ"]
    named = app.value("/users/7/about")
    assert named["headers"]["spin-path-match-id"] == "7"
    assert named["headers"]["spin-matched-route"] == "/users/:id/about"
    assert app.get("/nowhere").status_code == 404
    assert app.get("/hidden").status_code == 404
    assert app.get("/.well-known/spin/health").text == "OK"
    assert app.get("/.well-known/spin/info").json() == {"name": "everything", "version": "1.2.3"}


def check_variables(app: App) -> None:
    assert app.value("/main/variable/greeting") == "hello, s3cret!"
    assert app.value("/main/config") == {"greeting": "hello, s3cret!", "plain": "as it is"}
    assert app.get("/main/variable/secret").json() == "Error_Undefined", "it is not given to the component"
    assert app.get("/main/variable/Not-a-name").json() == "Error_InvalidName"
    assert app.get("/other/variable/greeting").json() == "Error_Undefined"


def check_key_values(app: App) -> None:
    """State outlives requests, each of which has an instance of its own."""
    assert [app.value("/main/counter") for _ in range(3)] == [1, 2, 3]
    assert app.value("/main/keys") == {"keys": ["a", "count"], "exists": [True, False], "b": None}
    assert [app.value("/main/increment") for _ in range(2)] == [5, 10]
    assert app.get("/other/counter").json() == "Error_AccessDenied"


def check_sqlite(app: App) -> None:
    app.value("/main/people/ada")
    assert app.value("/main/people/grace") == {"columns": ["id", "name"], "rows": [[1, "ada"], [2, "grace"]]}
    assert app.get("/main/bad-sql").json() == "Error_Io"
    assert app.get("/other/people/eve").json() == "Error_AccessDenied"


def check_files(app: App) -> None:
    assert app.value("/main/listing") == ["assets", "mounted"]
    assert app.value("/main/listing/assets") == ["deep", "index.html", "link"]
    assert app.value("/main/read/assets/index.html") == "<h1>hello</h1>"
    assert app.value("/main/read/assets/deep/er.txt") == "deeper"
    assert app.value("/main/read/mounted/note") == app.value("/main/read/assets/link") == "a note"
    assert app.value("/main/read/mounted/deep/er.txt") == "deeper"
    for path in ("assets/hidden.txt", "secret", "app.wasm", "mounted/none"):
        assert app.value(f"/main/read/{path}") == "No such file or directory", path
    assert app.value("/main/write/assets/new") == "Read-only file system"


def check_outbound(app: App) -> None:
    host, port = app.address.split(":")
    asked = f"{app.address}/.well-known/spin/health"
    assert app.value(f"/main/fetch/{asked}") == [200, "OK"]
    assert app.get(f"/other/fetch/{asked}").json() == "ErrorCode_HttpRequestDenied"
    assert app.get(f"/main/fetch/localhost:{port}/").json() == "ErrorCode_HttpRequestDenied"
    assert host == "127.0.0.1"


def check_what_is_not_there(app: App) -> None:
    assert app.get("/main/infer").json() == "Error_InvalidInput", "the component is granted no model"


@on_spin
def test_plain_variables_and_a_part_of_the_application(box: Box) -> None:
    more = {"GREETING": "good day", "SPIN_COMPONENTS_TO_RETAIN": "main"}
    with running(box, **more) as app:
        assert app.value("/main/variable/greeting") == "good day, s3cret!"
        assert app.get("/other/about").status_code == 404


@on_spin
@pytest.mark.parametrize("by", ["variable", "file"])
def test_a_limit_of_memory(box: Box, tmp_path: Path, by: str) -> None:
    """It is an instance's; what goes beyond is an answer, and the application lives."""
    file = tmp_path / "runtime-config.toml"
    file.write_text("max_instance_memory = 1048576\n")
    mounted = {"/runtime-config.toml": file} if by == "file" else None
    variables = {} if mounted else {"SPIN_MAX_INSTANCE_MEMORY": str(1 << 20)}
    with running(box, SPIN.image, mounted, **variables) as app:
        assert app.get("/main/about").status_code == 500
        assert app.get("/.well-known/spin/health").status_code == 200
        assert "memory minimum size" in app.output.read_text()
        assert "shimd: main: " in app.output.read_text()


RUNTIME = """
[[variables_provider]]
type = "static"
values = { secret = "configured" }
[key_value_store.default]
type = "spin"
path = "/data/store.db"
[sqlite_database.default]
type = "spin"
path = "data/sql.db"
"""


@on_spin
def test_a_runtime_configuration(box: Box, tmp_path: Path) -> None:
    """State in a volume outlives the container; a provider's variable goes before the environment's."""
    name = "test.invalid/configured:1"
    path = image(tmp_path / "configured.tar", name, MANIFEST, {**FILES, "/runtime-config.toml": RUNTIME.encode()})
    box.ctr("images", "import", str(path))
    (tmp_path / "volume").mkdir(mode=0o777)
    mount = f"type=bind,src={tmp_path}/volume,dst=/data,options=rbind:rw"
    for round in (1, 2):
        address = f"127.0.0.1:{free_port()}"
        flags = ("--net-host", "--mount", mount, "--env", f"SPIN_HTTP_LISTEN_ADDR={address}")
        box.detach(f"app{round}", flags=flags, image=name)
        until(lambda address=address: answers(address), "the application to listen")  # type: ignore[misc]
        app = App(address, tmp_path)
        assert app.value("/main/variable/greeting") == "hello, configured!"
        assert app.value("/main/counter") == round
        box.kill(f"app{round}", "SIGTERM")
        box.wait_status(f"app{round}", "STOPPED")
        box.remove(f"app{round}")
    assert {"store.db"} <= set(os.listdir(tmp_path / "volume"))


def changed(**changes: str) -> str:
    text = MANIFEST
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    tomllib.loads(text)
    return text


WRONG = {
    "version": ({"spin_manifest_version = 2": "spin_manifest_version = 1"}, "spin_manifest_version must be 2"),
    "clash": ({'"/other/..."': '"/main/..."'}, "gives the route /main/... to other; main has it"),
    "route": ({'"/other/..."': '"/other/.../x"'}, "a wildcard (/...) can only come last"),
    "component": ({'component = "other"': 'component = "others"'}, "trigger.http[2].component names 'others'"),
    "source": ({'[component.hidden]\nsource = "app.wasm"': "[component.hidden]"}, "component.hidden.source is missing"),
    "module": (
        {'[component.hidden]\nsource = "app.wasm"': '[component.hidden]\nsource = "no.wasm"'},
        "/no.wasm: no such file or directory",
    ),
    "variable": ({"{{secret}}": "{{ nobody }}"}, "component.main.variables.greeting uses the variable nobody"),
    "executor": (
        {'route = "/other/..."': 'route = "/other/..."\nexecutor = { type = "wagi" }'},
        "trigger.http[2].executor is one that shimd does not have",
    ),
    "key": (
        {"[component.hidden]": "[component.hidden]\nenviroment = {}"},
        "/spin.toml: component.hidden.enviroment is unknown; environment is probably meant",
    ),
    "middleware": (
        {'route = "/other/..."': 'route = "/other/..."\nmiddleware = ["auth"]'},
        "/spin.toml: trigger.http[2].middleware would be called before the component",
    ),
    "trigger": (
        {'[[trigger.http]]\nroute = "/other/..."': '[[trigger.sqs]]\nroute = "/other/..."'},
        "trigger.sqs[0] is a sqs trigger; shimd runs http, redis, cron, mqtt, command",
    ),
}


@on_spin
@pytest.mark.parametrize("what", WRONG)
def test_manifests_that_are_wrong(box: Box, tmp_path: Path, what: str) -> None:
    """One sentence that names the file and the field; nothing is left, and the daemon lives."""
    changes, words = WRONG[what]
    name = "test.invalid/wrong:1"
    path = image(tmp_path / "wrong.tar", name, changed(**changes), {"/app.wasm": NO_PROGRAM})
    box.ctr("images", "import", str(path))
    done = box.run("wrong", image=name, flags=("--rm", "--env", "SPIN_VARIABLE_SECRET=x"))
    assert done.code != 0
    assert words in done.err, done.err


@on_the_newest
@on_spin
def test_a_configuration_that_is_a_directory(box: Box, tmp_path: Path) -> None:
    """As Kubernetes mounts a file of a Secret that is not there: no application goes on without what it should say."""
    files = {"/app.wasm": NO_PROGRAM, "/runtime-config.toml/none": b""}
    box.ctr("images", "import", str(image(tmp_path / "wrong.tar", "test.invalid/wrong:1", MANIFEST, files)))
    done = box.run("wrong", image="test.invalid/wrong:1", flags=("--rm", "--env", "SPIN_VARIABLE_SECRET=x"))
    assert done.code != 0
    assert "/runtime-config.toml is a directory: Kubernetes makes one" in done.err, done.err


ONE = """
spin_manifest_version = 2
application = { name = "one" }
[[trigger.%s]]
component = "only"
[component.only]
source = "app.wasm"
"""
NEWER = '(component (instance $i) (export "wasi:http/handler@0.3.0" (instance $i)))'
HANDLER = '(instance $i) (export "wasi:http/incoming-handler@0.2.0" (instance $i))'
PROGRAMS = {
    "module": (
        "(module)",
        "it is a core module, and servers are components: rebuild it with a newer SDK (Spin's: 2 or",
    ),
    "newer": (
        NEWER,
        "it exports wasi:http/handler@0.3.0, which is WASI 0.3: its streams cannot be passed by wasmtime's",
    ),
    "nothing": ("(component)", "it is a component that serves nothing: it exports no wasi:http/incoming-handler"),
    "import": (f'(component (import "my:own/thing@1.0.0" (instance)) {HANDLER})', "the component imports my:own/thing"),
}


@on_spin
@pytest.mark.parametrize("what", PROGRAMS)
def test_components_that_do_not_run(box: Box, tmp_path: Path, what: str) -> None:
    """One sentence that names manifest and component, and says what does run."""
    text, words = PROGRAMS[what]
    manifest = ONE.replace("%s]]", 'http]]\nroute = "/..."')
    path = image(tmp_path / "wrong.tar", SPIN.image, manifest, {"/app.wasm": text.encode()})
    box.ctr("images", "import", str(path))
    done = box.run("wrong")
    if what == "newer" and NATIVE and box.runtime.name == "spin":
        words = "it does not link: instance export `wasi:http/handler@0.3.0` does not have"
    assert done.code != 0
    assert f"/spin.toml: component.only: {words}" in done.err, done.err


@on_spin
def test_a_component_without_what_its_trigger_calls(box: Box, tmp_path: Path) -> None:
    manifest = ONE.replace("%s]]", 'redis]]\nchannel = "c"\naddress = "redis://a"')
    path = image(tmp_path / "wrong.tar", SPIN.image, manifest, {"/app.wasm": f"(component {HANDLER})".encode()})
    box.ctr("images", "import", str(path))
    done = box.run("wrong")
    words = "it exports no fermyon:spin/inbound-redis, which its redis trigger calls"
    assert f"/spin.toml: component.only: {words}" in done.err, done.err


@on_spin
def test_a_required_variable(box: Box) -> None:
    done = box.run("wrong")
    assert "the variable secret is required: set SPIN_VARIABLE_SECRET" in done.err, done.err


@on_spin
def test_no_manifest(box: Box, tmp_path: Path) -> None:
    layer = images.layer({"/app.wasm": NO_PROGRAM}, guests.DIRECTORIES)
    images.save(tmp_path / "none.tar", [images.image("test.invalid/none:1", [layer], {"Entrypoint": ["/"]})])
    box.ctr("images", "import", tmp_path / "none.tar")
    done = box.run("none", image="test.invalid/none:1")
    words = "has neither /spin.toml nor the program that its command names, and its image is no Spin application"
    assert words in done.err, done.err


@on_spin
def test_the_older_name(box: Box) -> None:
    """``containerd-shim-spin-v1``: the same."""
    done = box.ctr("run", "--rm", "--runtime", "io.containerd.spin.v1", SPIN.image, "old", check=False)
    assert "the variable secret is required" in done.err, done.err


@on_spin
def test_a_port_that_is_taken(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        flags = ("--rm", "--net-host", "--env", "SPIN_VARIABLE_SECRET=x", "--env", f"SPIN_HTTP_LISTEN_ADDR={address}")
        done = box.run("wrong", flags=flags)
    assert (done.code, done.err) == (137, f"shimd: cannot listen on {address}: Address already in use\n")


@on_spin
def test_a_store_that_is_corrupt(box: Box, tmp_path: Path) -> None:
    name = "test.invalid/corrupt:1"
    path = image(tmp_path / "corrupt.tar", name, MANIFEST, {**FILES, "/.spin/sqlite_key_value.db": b"not sqlite" * 99})
    box.ctr("images", "import", str(path))
    with running(box, name) as app:
        assert app.get("/main/counter").json() == "Error_Other"
        assert app.get("/main/about").status_code == 200


@on_spin
def test_a_container_that_is_no_application(box: Box, containerd: Containerd, tmp_path: Path) -> None:
    """A sidecar of a pod whose class is spin: an ordinary module, or a native program."""
    wasmtime, runc = (next(it for it in RUNTIMES if it.name == name) for name in ("wasmtime", "runc"))
    native, wasm = guests.build()
    images.save(tmp_path / "standard.tar", guests.standard(native, wasm))
    containerd.import_image(tmp_path / "standard.tar", box.namespace)
    for ordinary in (wasmtime, runc):
        done = box.ctr(
            "run", "--rm", "--runtime", SPIN.type, ordinary.image, "side", ordinary.program, "exit", "7", check=False
        )
        assert done.code == 7, done.err
