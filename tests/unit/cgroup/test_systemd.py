"""``linux.resources`` as a unit's properties; the units themselves: ``tests/e2e/systemd/test_scopes.py``."""

from typing import Any

import pytest

from shimd.cgroup.systemd.properties import mask, properties

UNLIMITED = (1 << 64) - 1
MEMORY = {"memory": {"limit": 5000, "swap": 7000, "reservation": 10}}


@pytest.mark.parametrize(
    ("resources", "version", "expected"),
    [
        ({}, 2, {}),
        (MEMORY, 2, {"MemoryMax": 5000, "MemorySwapMax": 2000, "MemoryLow": 10}),
        (MEMORY, 1, {"MemoryLimit": 5000}),
        ({"memory": {"limit": -1}}, 2, {"MemoryMax": UNLIMITED, "MemorySwapMax": UNLIMITED}),
        ({"cpu": {"shares": 1024}}, 2, {"CPUWeight": 39}),
        ({"cpu": {"shares": 1024}}, 1, {"CPUShares": 1024}),
        ({"cpu": {"quota": 50000, "period": 100000}}, 1, {"CPUQuotaPerSecUSec": 500000, "CPUQuotaPeriodUSec": 100000}),
        ({"cpu": {"quota": 1001, "period": 100000}}, 2, {"CPUQuotaPerSecUSec": 20000, "CPUQuotaPeriodUSec": 100000}),
        ({"cpu": {"quota": -1}}, 2, {"CPUQuotaPerSecUSec": UNLIMITED, "CPUQuotaPeriodUSec": 100000}),
        ({"cpu": {"cpus": "0-1,3", "mems": "0"}}, 2, {"AllowedCPUs": b"\x0b", "AllowedMemoryNodes": b"\x01"}),
        ({"cpu": {"cpus": "0-1"}}, 1, {}),
        ({"pids": {"limit": 7}}, 1, {"TasksMax": 7}),
        ({"pids": {"limit": -1}}, 2, {"TasksMax": UNLIMITED}),
    ],
)  # fmt: skip
def test_properties(resources: dict[str, Any], version: int, expected: dict[str, Any]) -> None:
    assert {name: value for name, (_signature, value) in properties(resources, version)} == expected


@pytest.mark.parametrize(("text", "expected"), [("0", b"\x01"), ("8", b"\x00\x01"), ("0-7, 9", b"\xff\x02")])
def test_a_set_is_bits(text: str, expected: bytes) -> None:
    assert mask(text) == expected
