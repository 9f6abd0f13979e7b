"""From a process's plan to a worker that is ready, in its jail."""

from contextlib import aclosing

from shimd.engines.registry import engine_runs_applications
from shimd.protocol.plans import NewJail, Pause
from shimd.supervisor.task import plans
from shimd.supervisor.task.context import Context
from shimd.supervisor.task.plans import ProcessPlan
from shimd.supervisor.workers.fork_client import Worker
from shimd.supervisor.workers.jailers import During, Jail, nothing
from shimd.supervisor.workers.launch import Launch, ProgramFile, WhileHeld, no_hooks


async def spawn(
    context: Context,
    container: str,
    plan: ProcessPlan,
    stdio: tuple[int, int, int],
    during: During = nothing,
    while_held: WhileHeld = no_hooks,
) -> Worker:
    """Fork a worker and lead it to ready.

    :param during: called before that, but while its jail is being made
    :param while_held: called when it is in its namespaces, if there are hooks to be run then
    :raises NativeProgram: the program is none for an engine
    :raises ShimdError: it failed; the worker is gone
    """
    jails: list[Jail] = []

    async def held(worker: Worker) -> None:
        await while_held(worker)
        for jail in jails:
            await jail.finish()

    name = f"{context.namespace}/{plan.id}"
    async with aclosing(Launch(context, name, container, stdio, plan.birthplace, held)) as launch:
        if isinstance(plan.place, Pause):
            await during()
            return await launch.pause(plan.place)

        async def begin() -> None:
            await during()
            await launch.begin(listens=bool(plan.listen))

        terminal = stdio[0] if plan.place.terminal else None
        with await context.jail(plan.place, terminal, begin) as jail:
            jails.append(jail)
            finds_its_own = isinstance(plan.place, NewJail) and engine_runs_applications(context.engine)
            program = None if finds_its_own else ProgramFile(jail.path, jail.program, jail.missing, jail.digest)
            return await launch.app(plans.app(plan, jail), [jail.calls, *jail.fds], program)
