"""One value for one of the kernel's files, and how a list of them is written."""

import errno
from collections.abc import Callable
from typing import NamedTuple

from shimd.cgroup.files import Writer
from shimd.errors import FailedPrecondition, InvalidArgument, ShimdError, Unimplemented, from_os, reason

_INVALID = frozenset({errno.EINVAL, errno.ERANGE, errno.ENODEV, errno.ENXIO, errno.ENOSPC, errno.EOVERFLOW})


class Setting(NamedTuple):
    controller: str
    file: str
    value: str
    optional: bool = False
    """True if a node without the file behaves so anyway (no limit, no weight, nothing allowed)."""
    instead: "Setting | None" = None
    """A setting that is written where the kernel has no such file."""


Find = Callable[[str], str | None]
"""The directory in which a controller's files are; ``None`` if this node lacks the controller."""


def write_all(settings: list[Setting], find: Find) -> None:
    """Write them in order; what the kernel refuses as invalid is tried once more after all others.

    For values that bound each other (memory and memory+swap, quota and period): in which order they must be written
    depends on whether they grow or shrink.

    :raises Unimplemented: the node lacks the controller or the file
    :raises InvalidArgument: the kernel refuses the value
    :raises FailedPrecondition: it cannot be had now (a limit below what is in use)
    """
    with Writer() as writer:
        refused = [setting for setting in settings if not _accepted(setting, find, writer)]
        for setting in refused:
            _write(setting, find, writer)


def _accepted(setting: Setting, find: Find, writer: Writer) -> bool:
    try:
        _write(setting, find, writer)
    except InvalidArgument:
        return False
    return True


def _write(setting: Setting, find: Find, writer: Writer) -> None:
    directory = find(setting.controller)
    try:
        if directory is None:
            raise FileNotFoundError
        writer.write(f"{directory}/{setting.file}", setting.value)
    except FileNotFoundError:
        _missing(setting, find, writer)
    except OSError as error:
        raise _refused(setting, error) from error


def _missing(setting: Setting, find: Find, writer: Writer) -> None:
    if setting.instead is not None:
        _write(setting.instead, find, writer)
    elif not setting.optional:
        lacks = f"cgroup controller {setting.controller}" if find(setting.controller) is None else "such cgroup file"
        raise Unimplemented(f"{setting.file} cannot be set to {setting.value!r}: this node has no {lacks}")


def _refused(setting: Setting, error: OSError) -> ShimdError:
    sentence = f"{setting.file} cannot be set to {setting.value!r}: {reason(error)}"
    if error.errno in _INVALID:
        return InvalidArgument(sentence)
    return FailedPrecondition(sentence) if error.errno == errno.EBUSY else from_os(error)
