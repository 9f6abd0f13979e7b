"""Cgroups of version 1, 2 and both at once ("hybrid"): limits, freezing, counting, and out-of-memory kills.

Everything is plain files, as the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst describe them. systemd
is not asked over D-Bus: its names for cgroups are understood, and the directories made directly (see :mod:`.paths`).
"""

from shimd.cgroup.cgroup import Cgroup
from shimd.cgroup.stats import Readings
from shimd.linux.cgroup import join

__all__ = ["Cgroup", "Readings", "join"]
