"""A worker that becomes a hook: a program that a container's configuration names for a moment of its life."""

import os
from typing import NoReturn

from shimd.errors import InvalidArgument, reason
from shimd.worker.messages import Plan
from shimd.worker.seal import seal
from shimd.worker.steps import Runner


def become(plan: Plan, steps: bytes) -> NoReturn:
    """Go where the hook belongs, and become its program. With no steps that is the node itself.

    :raises InvalidArgument: it cannot be executed
    :raises ShimdError: a step fails
    """
    hook = plan["hook"]
    for fd in range(3):
        os.set_inheritable(fd, True)
    seal("a hook's entry into the container")
    runner = Runner(steps)
    while not runner.done:
        runner.run()
    path = hook["path"]
    environment = dict(item.partition("=")[::2] for item in hook["env"])
    try:
        if directory := plan.get("directory"):
            os.chdir(directory)
        os.execve(path, hook.get("args") or [path], environment)
    except OSError as error:
        raise InvalidArgument(f"{path}: {reason(error)}") from error
