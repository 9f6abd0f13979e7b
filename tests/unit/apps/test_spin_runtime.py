"""``/runtime-config.toml``: stores, and providers of variables in their order."""

from collections.abc import Callable, Mapping

import pytest

from shimd.apps.spin.backends import File
from shimd.apps.spin.engine import _memory, _settings
from shimd.apps.spin.model import Application, Triggers, Variable
from shimd.apps.spin.place import Place
from shimd.apps.spin.runtime import Runtime
from shimd.apps.spin.variables import ApplicationVariables
from shimd.engine import InvalidSetting

DECLARED = {"first": Variable(None), "second": Variable("default")}


def reader(files: Mapping[str, str]) -> Callable[[str], bytes | None]:
    return lambda path: files[path].encode() if path in files else None


def values(files: Mapping[str, str], **environment: str) -> tuple[str, str]:
    """Of the two variables."""
    runtime = Runtime(Place(reader(files)), environment, DECLARED)
    application = Application("/spin.toml", "a", "1", DECLARED, {}, Triggers())
    found = ApplicationVariables(application, runtime.variables)
    return found.resolve("{{ first }}", ""), found.resolve("{{second}}", "")


def configured(text: str, **files: str) -> dict[str, str]:
    return {"/runtime-config.toml": text, **{f"/{name}": content for name, content in files.items()}}


def test_the_environment() -> None:
    assert values({}, SPIN_VARIABLE_FIRST="one") == ("one", "default")


def test_a_plain_name_goes_before_the_prefixed_one_as_in_spinkube() -> None:
    assert values({}, SPIN_VARIABLE_FIRST="prefixed", FIRST="plain", first="no") == ("plain", "default")


def test_dotenv_comes_last() -> None:
    dotenv = {"/.env": "# ours\nSPIN_VARIABLE_FIRST=\"from file\"\nexport SPIN_VARIABLE_SECOND='two'\nnonsense\n"}
    assert values(dotenv) == ("from file", "two")
    assert values(dotenv, SPIN_VARIABLE_FIRST="environment") == ("environment", "two")


def test_providers_go_before_the_environment_in_their_order() -> None:
    text = """
    [[variables_provider]]
    type = "static"
    values = { first = "static" }
    [[config_provider]]
    type = "static"
    values = { first = "later", second = "later" }
    """
    assert values(configured(text), SPIN_VARIABLE_FIRST="environment") == ("static", "later")


def test_another_prefix() -> None:
    text = '[[variables_provider]]\ntype = "env"\nprefix = "OWN"\ndotenv_path = "own.env"'
    files = configured(text, **{"own.env": "OWN_FIRST=file\nOWN_SECOND=file"})
    assert values(files, OWN_FIRST="environment") == ("environment", "file")


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("secrets", {"secrets/first": "value\n", "secrets/second": "other", "secrets/third": "not declared"}),
        ("/values.toml", {"values.toml": 'first = "value"\nsecond = "other"\n'}),
        ("values.json", {"values.json": '{"first": "value", "second": "other"}'}),
    ],
)
def test_files(path: str, files: Mapping[str, str]) -> None:
    text = f'[[variables_provider]]\ntype = "file"\npath = "{path}"'
    assert values(configured(text, **files)) == ("value", "other")


def test_a_directory_in_the_place_of_the_file() -> None:
    """As Kubernetes mounts a file of a Secret that is not there."""

    def read(path: str) -> bytes | None:
        if path == "/runtime-config.toml":
            raise IsADirectoryError
        return None

    with pytest.raises(InvalidSetting, match=r"/runtime-config\.toml is a directory"):
        Runtime(Place(read), {}, DECLARED)


def test_a_directory_of_variables() -> None:
    """Whose files are read one by one."""
    text = '[[variables_provider]]\ntype = "file"\npath = "/secrets"'
    files = configured(text, **{"secrets/first": "one"})

    def read(path: str) -> bytes | None:
        if path == "/secrets":
            raise IsADirectoryError
        return reader(files)(path)

    assert Runtime(Place(read), {}, DECLARED).variables[0] == {"first": "one"}


def test_a_required_variable_that_nobody_gives() -> None:
    with pytest.raises(InvalidSetting, match="the variable first is required: set SPIN_VARIABLE_FIRST"):
        values({})


def test_stores() -> None:
    text = """
    [key_value_store.here]
    type = "spin"
    path = "data/kv.db"
    [key_value_store.there]
    type = "redis"
    url = "redis://server"
    """
    runtime = Runtime(Place(reader(configured(text))), {}, DECLARED)
    assert set(runtime.stores) == {"default", "here", "there"}
    assert runtime.stores["there"] == "redis://server"
    here = runtime.stores["here"]
    assert isinstance(here, File)
    assert str(here.path) == "/data/kv.db"
    assert runtime.uses_redis


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "/runtime-config.toml is not TOML"),
        ('[key_value_store.a]\ntype = "azure_cosmos"', "key_value_store.a.type is 'azure_cosmos'; shimd has \"spin\" "),
        ('[key_value_store.a]\ntype = "aws_dynamo"', "key_value_store.a.type is 'aws_dynamo'; shimd has \"spin\" "),
        ('[key_value_store.a]\ntype = "redis"', "key_value_store.a.url is missing"),
        ('[sqlite_database.a]\ntype = "mysql"', "sqlite_database.a.type is 'mysql'; shimd has \"spin\""),
        ('[sqlite_database.a]\ntype = "libsql"', "sqlite_database.a.url is missing"),
        (
            '[sqlite_database.a]\ntype = "libsql"\nurl = "libsql://db"\ntoken = "t"',
            'sqlite_database.a.url is "libsql://db", which is not http://HOST',
        ),
        ('[sqlite_database.a]\ntype = "libsql"\nurl = "http://db"', "sqlite_database.a.token is missing"),
        (
            '[sqlite_database.a]\ntype = "libsql"\nurl = "http://db"\ntoken = "a\\n"',
            "sqlite_database.a.token has what no header can hold",
        ),
        (
            '[[variables_provider]]\ntype = "azure_key_vault"',
            r"variables_provider\[0\].type is 'azure_key_vault'; shimd has .* mount its secrets as files",
        ),
        ('[[variables_provider]]\ntype = "vault"', r"variables_provider\[0\].url is missing"),
        (
            '[[variables_provider]]\ntype = "vault"\nurl = "http://v"\ntoken = "t"',
            r"variables_provider\[0\].mount is missing",
        ),
        (
            '[llm_compute]\ntype = "spin"',
            "llm_compute.type is 'spin'; shimd runs no models, but asks for \"remote_http\"",
        ),
        ('[llm_compute]\nurl = "http://a"', "llm_compute.type is None; shimd runs no models"),
        ('[llm_compute]\ntype = "remote_http"\nurl = "a:b"\nauth_token = ""', 'llm_compute.url is "a:b", which is not'),
        ('[llm_compute]\ntype = "remote_http"\nurl = "http://a"', "llm_compute.auth_token is missing"),
        (
            '[llm_compute]\ntype = "remote_http"\nurl = "http://a"\nauth_token = ""\napi_type = "x"',
            'llm_compute.api_type is "x", and is "default" or "open_ai"',
        ),
        (
            '[[variables_provider]]\ntype = "static"\nvalues = { a = 1 }',
            r"values.a is not a string",
        ),
        (
            '[[variables_provider]]\ntype = "file"\npath = "bad.toml"',
            "path names /bad.toml, which is",
        ),
    ],
)
def test_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        values(configured(text, **{"bad.toml": "= ="}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("/.spin/sqlite_key_value.db", "/.spin/sqlite_db.db")),
        ('state_dir = "data/state"', ("/data/state/sqlite_key_value.db", "/data/state/sqlite_db.db")),
        ('state_dir = "/data"', ("/data/sqlite_key_value.db", "/data/sqlite_db.db")),
    ],
)
def test_where_state_is(text: str, expected: tuple[str, str]) -> None:
    runtime = Runtime(Place(reader(configured(text))), {}, DECLARED)
    store = runtime.stores["default"]
    assert isinstance(store, File)
    database = runtime.databases["default"]
    assert isinstance(database, File)
    assert (str(store.path), str(database.path)) == expected


def test_what_has_no_path_is_with_the_rest_of_the_state() -> None:
    text = 'state_dir = "/data"\n[key_value_store.a]\ntype = "spin"\n[sqlite_database.b]\ntype = "spin"'
    runtime = Runtime(Place(reader(configured(text))), {}, DECLARED)
    store = runtime.stores["a"]
    assert isinstance(store, File)
    database = runtime.databases["b"]
    assert isinstance(database, File)
    assert (str(store.path), str(database.path)) == ("/data/a.db", "/data/b.db")


def test_state_that_nobody_would_keep() -> None:
    with pytest.raises(InvalidSetting, match="state_dir is empty, which keeps state in memory only: mount a tmpfs"):
        Runtime(Place(reader(configured('state_dir = ""'))), {}, DECLARED)


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("", {}, -1),
        ("max_instance_memory = 7", {}, 7),
        ("max_instance_memory = 7", {"SPIN_MAX_INSTANCE_MEMORY": "9"}, 9),
    ],
)
def test_memory_of_an_instance(text: str, environment: dict[str, str], expected: int) -> None:
    """The variable goes before the file."""
    assert _memory(environment, Runtime(Place(reader(configured(text))), {}, DECLARED).memory) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", ("0.0.0.0", 80)), ("127.0.0.1:3000", ("127.0.0.1", 3000)), ("[::]:80", ("::", 80)), ("[::1]:0", ("::1", 0))],
)
def test_where_an_application_listens(text: str, expected: tuple[str, int]) -> None:
    found = _settings({"SPIN_HTTP_LISTEN_ADDR": text})
    assert (found.host, found.port) == expected


@pytest.mark.parametrize("text", ["3000", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:65536"])
def test_where_no_application_can_listen(text: str) -> None:
    with pytest.raises(InvalidSetting, match=f"^SPIN_HTTP_LISTEN_ADDR={text} is not HOST:PORT$"):
        _settings({"SPIN_HTTP_LISTEN_ADDR": text})
