"""Looking into ``linux.resources`` (runtime-spec, config-linux.md), which comes as JSON from anybody."""

from typing import Any

from shimd.errors import InvalidArgument


def section(resources: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns an object's field that is an object; empty if absent."""
    value = resources.get(name) or {}
    if not isinstance(value, dict):
        raise InvalidArgument(f"linux.resources: {name} is not an object: {value!r}")
    return value


def entries(resources: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Returns an object's field that is a list of objects; empty if absent."""
    value = resources.get(name) or []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InvalidArgument(f"linux.resources: {name} is not a list of objects: {value!r}")
    return value


def number(section: dict[str, Any], name: str) -> int | None:
    """Returns an object's field that is a whole number; ``None`` if absent."""
    value = section.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise InvalidArgument(f"linux.resources: {name} is not a whole number: {value!r}")
    return value


def nonzero(section: dict[str, Any], name: str) -> int | None:
    """Returns a number as :func:`number` does, where zero, too, means "not asked for"."""
    return number(section, name) or None


def text(section: dict[str, Any], name: str) -> str:
    value = section.get(name) or ""
    if not isinstance(value, str):
        raise InvalidArgument(f"linux.resources: {name} is not a string: {value!r}")
    return value


def devices_with(resources: dict[str, Any], list_name: str, value_name: str) -> list[tuple[str, int]]:
    """Returns the device (``MAJOR:MINOR``) and the value of each entry that has one."""
    pairs = [
        (f"{number(entry, 'major')}:{number(entry, 'minor')}", number(entry, value_name))
        for entry in entries(resources, list_name)
    ]
    return [(device, value) for device, value in pairs if value is not None]
