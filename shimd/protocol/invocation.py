"""A plan as an engine sees it."""

from collections.abc import Sequence

from shimd.engine import Invocation, Preopen
from shimd.oci import Process
from shimd.oci.programs import split_entry
from shimd.protocol.messages import Plan


def invocation_of(plan: Plan, listening: Sequence[int] = ()) -> Invocation:
    process = plan["process"]
    program, entry = split_entry(process["args"][0])
    return Invocation(
        args=[program, *process["args"][1:]],
        env=environment(process),
        cwd=process["cwd"],
        preopens=[Preopen(*item) for item in plan.get("preopens", [])],
        entry=entry,
        network=plan["kind"] != "run" or plan.get("network", False),
        contained=plan["kind"] != "run",
        listening=listening,
    )


def environment(process: Process) -> dict[str, str]:
    return dict(item.split("=", 1) for item in process.get("env", []) if "=" in item)
