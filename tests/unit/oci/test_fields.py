"""The table of fields against the published schema, against its own document, and what becomes of wrong fields."""

import ast
import copy
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from shimd import oci
from shimd.errors import InvalidArgument, Unimplemented
from shimd.oci import fields
from shimd.oci.fields import TABLE, Row, Verdict

REPOSITORY = Path(__file__).parents[3]
SCHEMA = REPOSITORY / ".cache/runtime-spec"
DOCUMENT = REPOSITORY / "docs/oci.md"
#: Of other systems: one row each.
OTHERS = ("solaris", "windows", "vm", "zos", "freebsd")
GOOD: dict[str, Any] = {
    "root": {"path": "rootfs"},
    "process": {"args": ["/app"], "cwd": "/"},
    "linux": {"namespaces": [{"type": "uts"}]},
}


# The published schema


@cache
def schema(name: str) -> Any:
    path = SCHEMA / name
    if not path.exists():
        pytest.skip(f"{path} is missing: run tools/setup")
    return json.loads(path.read_text())


def resolved(node: Any, file: str) -> tuple[Any, str]:
    while "$ref" in node:
        other, _, pointer = node["$ref"].partition("#")
        file = other or file
        node = schema(file)
        for part in filter(None, pointer.split("/")):
            node = node[part]
    return node, file


def properties(node: Any, file: str, path: str) -> Iterator[tuple[str, str]]:
    """(field, type) of all that a part of the schema knows; the type is empty where there are several."""
    node, file = resolved(node, file)
    for key in ("allOf", "anyOf", "oneOf"):
        for part in node.get(key, []):
            yield from properties(part, file, path)
    for name, inner in node.get("properties", {}).items():
        field = f"{path}.{name}" if path else name
        yield field, resolved(inner, file)[0].get("type", "")
        if field not in OTHERS:
            yield from properties(inner, file, field)
    items = node.get("items", [])
    for item in items if isinstance(items, list) else [items]:
        yield from properties(item, file, f"{path}[]")
    each = [*node.get("patternProperties", {}).values(), node.get("additionalProperties", False)]
    for inner in each:
        if isinstance(inner, dict):
            yield from properties(inner, file, f"{path}.*")


@cache
def published() -> dict[str, str]:
    return dict(properties({"$ref": "config-schema.json"}, "config-schema.json", ""))


@pytest.mark.skipif(not SCHEMA.exists(), reason="no schema: run tools/setup")
def test_the_schema_is_of_the_version_that_we_name() -> None:
    assert SCHEMA.resolve().name == f"runtime-spec-v{oci.VERSION}"


def test_every_field_is_in_the_table_and_no_other() -> None:
    assert sorted(fields.names()) == sorted(published())


#: Of the table's kinds, what the schema calls them.
JSON = {
    "string": "string", "path": "string", "strings": "array", "u32s": "array", "boolean": "boolean", "object": "object",
    "objects": "array", "texts": "object", "map": "object", "u16": "integer", "u32": "integer", "u64": "integer",
    "i32": "integer", "i64": "integer", "positive": "integer",
}  # fmt: skip


def test_types_are_the_schemas() -> None:
    kinds = {name: JSON[row.kind] for row in TABLE for name in row.fields}
    assert {name: kind for name, kind in kinds.items() if published()[name] not in ("", kind)} == {}


# Checking


def put(spec: Any, name: str, value: object) -> None:
    """Set a field, with all that it is in."""
    *above, last = name.split(".")
    for part in above:
        key = part.removesuffix("[]")
        if key == "*":
            key = "any"
        inner: Any = [{}] if part.endswith("[]") else {}
        spec = spec.setdefault(key, inner)
        if isinstance(spec, list):
            spec = spec[0]
    spec["any" if last == "*" else last] = value


WRONG: dict[str, object] = {
    "string": 1, "path": "relative", "strings": ["a", 1], "u32s": [-1], "boolean": 1, "object": [], "objects": ["a"],
    "texts": {"a": 1}, "map": {"a": 1}, "u16": 1 << 16, "u32": 1 << 32, "u64": -1, "i32": 1 << 31, "i64": True,
    "positive": 0,
}  # fmt: skip
SHOWN = [(row, row.fields[-1]) for row in TABLE]


@pytest.mark.parametrize(("row", "name"), SHOWN, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_type_is_refused_by_its_name(row: Row, name: str) -> None:
    spec: Any = {}
    put(spec, name, WRONG[row.kind])
    with pytest.raises(InvalidArgument) as caught:
        fields.check(spec, "config.json")
    shown = re.escape(name).replace(r"\[\]", r"\[0\]").replace(r"\*", "any")
    assert re.match(rf"config\.json: {shown}(\.[a-z]+)? must be ", str(caught.value)), caught.value


@pytest.mark.parametrize("name", [name for row in TABLE if row.needed for name in row.fields])
def test_what_is_needed_and_missing_is_named(name: str) -> None:
    spec: Any = {}
    put(spec, name, "/path")
    inner, last = spec, name.rpartition(".")[2]
    for part in name.split(".")[:-1]:
        inner = inner[part.removesuffix("[]")]
        inner = inner[0] if isinstance(inner, list) else inner
    inner.clear()
    with pytest.raises(InvalidArgument, match=r" is missing$") as caught:
        fields.check(spec, "config.json")
    assert name.rpartition(".")[0].replace("[]", "[0]") in str(caught.value)
    assert last


def test_unknown_fields_are_ignored() -> None:
    spec = GOOD | {"new": {"a": 1}, "process": GOOD["process"] | {"newer": [1]}}
    before = copy.deepcopy(spec)
    fields.check(spec, "config.json")
    fields.refuse(spec)  # type: ignore[arg-type]
    assert spec == before


def test_what_is_null_is_not_there() -> None:
    """As for Go, in which whoever writes these files reads them."""
    spec: Any = GOOD | {"mounts": None, "linux": {"namespaces": None, "resources": {"cpu": None}}}
    fields.check(spec, "config.json")
    assert spec["linux"] == {"resources": {}}
    assert "mounts" not in spec


@pytest.mark.parametrize("name", sorted(path.name for path in (SCHEMA / "test/config/good").glob("*.json")))
def test_the_schemas_own_examples_are_accepted(name: str) -> None:
    fields.check(json.loads((SCHEMA / "test/config/good" / name).read_text()), name)


# Refusing

FULL: dict[str, object] = {
    "string": "a", "path": "/a", "strings": ["a"], "boolean": True, "u32": 1, "objects": [{"a": 1}], "map": {"a": {}},
    "object": {"a": 1},
}  # fmt: skip
REFUSED = [(row, name) for row in TABLE if row.verdict is Verdict.REFUSED for name in row.fields]


@pytest.mark.parametrize(("row", "name"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_refused_is_named(row: Row, name: str) -> None:
    spec = copy.deepcopy(GOOD)
    put(spec, name, FULL[row.kind])
    fields.check({key: value for key, value in spec.items() if key != "mounts"}, "config.json")
    with pytest.raises(Unimplemented) as caught:
        fields.refuse(spec)  # type: ignore[arg-type]
    refused, sentence = str(caught.value).split(": ", 1)
    assert name.startswith(refused)
    assert sentence == row.remark or row.remark == "with what it is in"


@pytest.mark.parametrize("row", [row for row in TABLE if row.verdict is not Verdict.REFUSED], ids=lambda row: row.name)
def test_nothing_else_is_refused(row: Row) -> None:
    spec = copy.deepcopy(GOOD)
    for name in row.fields:
        if name not in ("linux", "linux.namespaces", "linux.namespaces[].type", "linux.mountLabel"):
            put(spec, name, FULL.get(row.kind, 1))
    fields.refuse(spec)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"linux": {"namespaces": [{"type": "user"}]}}, "linux.namespaces: user namespaces are not supported"),
        ({"linux": {"namespaces": [{"type": "pid"}, {"type": "pid"}]}}, "linux.namespaces: pid is there twice"),
        ({"hostname": "name", "linux": {}}, "hostname: it is the node's"),
        ({"domainname": "name"}, "domainname: it is the node's"),
    ],
)
def test_what_makes_no_sense_is_refused(spec: Any, sentence: str) -> None:
    with pytest.raises((InvalidArgument, Unimplemented)) as caught:
        fields.refuse(spec)
    assert str(caught.value).startswith(sentence)


# The document


def documented() -> dict[str, tuple[str, str, str]]:
    """Of each row: what becomes of it, the remark, the test."""
    rows = [line.strip("| ").split(" | ") for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): (row[1], row[2].strip(), row[3].strip("` ") if len(row) > 3 else "") for row in rows}


def test_the_document_is_the_table() -> None:
    found = {name: (verdict, remark) for name, (verdict, remark, _test) in documented().items()}
    assert found == {row.name: (row.verdict.value, row.remark) for row in TABLE}
    assert list(documented()) == [row.name for row in TABLE]


def test_what_is_applied_has_a_test() -> None:
    rows = [(name, test) for name, (verdict, _remark, test) in documented().items() if verdict == "applied"]
    missing = {name: test for name, test in rows if not exists(test)}
    assert missing == {}


def exists(test: str) -> bool:
    file, _, function = test.partition("::")
    return function in functions(file)


@cache
def functions(file: str) -> set[str]:
    path = REPOSITORY / "tests" / file
    if not path.is_file():
        return set()
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
