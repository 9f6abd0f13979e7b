"""A plan as an engine sees it."""

from collections.abc import Sequence

from shimd.engine import Invocation
from shimd.oci import Process
from shimd.oci.programs import split_entry
from shimd.protocol.plans import App, ContainerApp


def invocation_of(plan: App, listening: Sequence[int] = ()) -> Invocation:
    """The run of a guest that a plan asks for.

    :param listening: descriptors of its listening sockets
    """
    process = plan.process
    program, entry = split_entry(process["args"][0])
    return Invocation(
        args=[program, *process["args"][1:]],
        env=environment(process),
        cwd=process["cwd"],
        preopens=plan.preopens,
        entry=entry,
        network=isinstance(plan, ContainerApp) or plan.network,
        contained=isinstance(plan, ContainerApp),
        listening=listening,
    )


def environment(process: Process) -> dict[str, str]:
    """The variables of a process's ``env``, by name."""
    return dict(item.split("=", 1) for item in process.get("env", []) if "=" in item)
