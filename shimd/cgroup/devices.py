"""The device nodes that a container may use, for version 1's ``devices`` controller.

Version 2 has no such controller but an eBPF program per cgroup, which shimd does not make: a WASI guest has no call
that makes device nodes, the worker's capability to do so is dropped unless the spec keeps it, and what devices are in
its file system is what the spec put there.
"""

from typing import Any

from shimd.cgroup.resources import entries, number, text
from shimd.cgroup.setting import Setting

_TYPES = {"": "a", "a": "a", "b": "b", "c": "c", "u": "c", "p": "c"}

# config-linux.md, "Default Devices": a runtime supplies them, so they work whatever the rules say. The two that allow
# just mknod (not use) are what runc adds too, and any system image expects.
_DEFAULT = (
    "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm",
    "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm",
)  # fmt: skip


def settings(resources: dict[str, Any]) -> list[Setting]:
    """Returns the rules in their order, then the defaults; nothing if there are no rules at all."""
    rules = [_rule(rule) for rule in entries(resources, "devices")]
    if not rules:
        return []
    return [_setting(*rule) for rule in rules] + [
        _setting(True, rule) for rule in _DEFAULT if (True, rule) not in rules
    ]


def _setting(allow: bool, rule: str) -> Setting:
    return Setting("devices", "devices.allow" if allow else "devices.deny", rule, optional=True)


def _rule(rule: dict[str, Any]) -> tuple[bool, str]:
    kind = _TYPES.get(text(rule, "type"), text(rule, "type"))
    if kind == "a":  # the kernel takes "all" as that, whatever numbers follow
        return bool(rule.get("allow")), "a"
    return bool(rule.get("allow")), f"{kind} {_id(rule, 'major')}:{_id(rule, 'minor')} {text(rule, 'access') or 'rwm'}"


def _id(rule: dict[str, Any], name: str) -> str:
    value = number(rule, name)
    return "*" if value is None or value < 0 else str(value)
