"""What a worker is told, by what the container's spec says."""

from pathlib import Path
from typing import Any

import pytest

from shimd.oci import Spec
from shimd.task import plans
from shimd.worker.messages import Plan


def spec(*namespaces: dict[str, str], **annotations: str) -> Spec:
    found: Any = {
        "process": {"args": ["/app.wasm"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "annotations": annotations,
        "linux": {"namespaces": list(namespaces)},
    }
    result: Spec = found
    return result


class NoCgroup:
    directories: tuple[str, ...] = ()
    unified = None


def first(found: Spec) -> Plan:
    return plans.init("app", Path("/bundle"), found, [], NoCgroup(), terminal=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("namespaces", "expected"),
    [([], None), ([{"type": "pid"}], "new"), ([{"type": "pid", "path": "/proc/7/ns/pid"}], "/proc/7/ns/pid")],
)
def test_the_pid_namespace(namespaces: list[dict[str, str]], expected: str | None) -> None:
    assert first(spec(*namespaces))["pidns"] == expected


def test_an_exec_joins_the_inits_pid_namespace_if_it_is_not_the_hosts() -> None:
    for namespaces, expected in (([{"type": "pid"}], "/proc/42/ns/pid"), ([], None)):
        found = spec(*namespaces)
        plan = plans.exec("app/e", Path("/b"), found, found["process"], NoCgroup(), 42, terminal=False)  # type: ignore[arg-type]
        assert (plan["kind"], plan["pidns"], plan["init_pid"]) == ("exec", expected, 42)


def test_a_sandbox_gets_neither_a_root_file_system_nor_a_filter() -> None:
    plan = first(spec(**{plans.CONTAINER_TYPE: "sandbox"}))
    assert (plan["kind"], plan["rootfs"], plan.get("seccomp")) == ("sandbox", [], None)


@pytest.mark.parametrize("annotations", [{}, {plans.CONTAINER_TYPE: "container"}])
def test_all_else_is_an_app_and_has_a_filter(annotations: dict[str, str]) -> None:
    plan = first(spec(**annotations))
    assert plan["kind"] == "init"
    assert plan["seccomp"]


def test_annotations_may_be_missing() -> None:
    assert not plans.is_sandbox({})
    assert not plans.is_sandbox({"annotations": None})  # type: ignore[typeddict-item]
