"""Cgroups that systemd knows as units (``SystemdCgroup``), so that it leaves their limits alone and shows them.

Loaded only where the option is set: all else needs no D-Bus.
"""

from shimd.cgroup.systemd.scope import Scope

__all__ = ["Scope"]
