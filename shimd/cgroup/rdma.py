"""``linux.resources.rdma``: the same file in both versions (kernel: Documentation/admin-guide/cgroup-v1/rdma.rst)."""

from typing import Any

from shimd.cgroup.resources import number, section
from shimd.cgroup.setting import Setting


def settings(resources: dict[str, Any]) -> list[Setting]:
    found = []
    devices = section(resources, "rdma")
    for device in devices:
        limits = section(devices, device)
        pairs = (("hca_handle", number(limits, "hcaHandles")), ("hca_object", number(limits, "hcaObjects")))
        value = " ".join([device, *(f"{name}={limit}" for name, limit in pairs if limit is not None)])
        found.append(Setting("rdma", "rdma.max", value))
    return found
