"""The kernel's counts as containerd's messages, from files as kernels write them (and never more than is there)."""

import pytest

from shimd.api.io.containerd.cgroups import v1, v2
from shimd.cgroup import Readings
from shimd.supervisor.task.metrics import metrics

V1 = {
    "pids.current": "3",
    "pids.max": "max",
    "cpuacct.stat": "user 150\nsystem 50",
    "cpuacct.usage": "2000000001",
    "cpuacct.usage_percpu": "1500000000 500000001",
    "cpu.stat": "nr_periods 10\nnr_throttled 2\nthrottled_time 7000",
    "memory.stat": "cache 4096\npgpgin 7\nhierarchical_memsw_limit 99\ntotal_cache 8192\ntotal_pgfault 5",
    "memory.usage_in_bytes": "12288",
    "memory.limit_in_bytes": "9223372036854771712",
    "memory.max_usage_in_bytes": "20480",
    "memory.failcnt": "1",
    "memory.kmem.usage_in_bytes": "512",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2",
    "blkio.throttle.io_service_bytes": "8:0 Read 4096\n8:0 Write 0\nTotal 4096",
    "blkio.throttle.io_serviced": "8:0 Read 1\nTotal 1",
    "hugetlb.2MB.usage_in_bytes": "2097152",
    "hugetlb.2MB.max_usage_in_bytes": "4194304",
    "hugetlb.2MB.failcnt": "3",
    "rdma.current": "mlx4_0 hca_handle=1 hca_object=20",
    "rdma.max": "mlx4_0 hca_handle=2 hca_object=max",
}
V2 = {
    "pids.current": "3",
    "pids.max": "max",
    "cpu.stat": "usage_usec 300\nuser_usec 200\nsystem_usec 100\nnr_periods 4\nnr_throttled 1\nthrottled_usec 9",
    "cpu.pressure": "some avg10=0.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0",
    "memory.stat": "anon 4096\nfile 8192\ninactive_file 1024\npgfault 12",
    "memory.current": "16384",
    "memory.max": "max",
    "memory.peak": "32768",
    "memory.swap.current": "0",
    "memory.swap.max": "0",
    "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1",
    "io.stat": "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n9:1 ",
    "hugetlb.2MB.current": "2097152",
    "hugetlb.2MB.max": "max",
    "hugetlb.2MB.events": "max 5",
    "rdma.current": "mlx4_0 hca_handle=1 hca_object=20",
}


def test_version_1() -> None:
    found = metrics(Readings(1, V1))
    assert isinstance(found, v1.Metrics)
    assert found.pids == v1.PidsStat(current=3, limit=0)
    assert found.cpu is not None and found.cpu.usage is not None and found.cpu.throttling is not None
    assert (found.cpu.usage.total, found.cpu.usage.per_cpu) == (2000000001, [1500000000, 500000001])
    assert (found.cpu.usage.user, found.cpu.usage.kernel) == (1_500_000_000, 500_000_000)
    assert found.cpu.throttling == v1.Throttle(periods=10, throttled_periods=2, throttled_time=7000)
    memory = found.memory
    assert memory is not None
    assert (memory.cache, memory.pg_pg_in, memory.total_cache, memory.total_pg_fault) == (4096, 7, 8192, 5)
    assert memory.hierarchical_swap_limit == 99
    assert memory.usage == v1.MemoryEntry(limit=9223372036854771712, usage=12288, max=20480, failcnt=1)
    assert memory.kernel == v1.MemoryEntry(usage=512)
    assert found.memory_oom_control == v1.MemoryOomControl(oom_kill=2)
    assert found.hugetlb == [v1.HugetlbStat(usage=2097152, max=4194304, failcnt=3, pagesize="2MB")]
    assert found.rdma is not None
    assert found.rdma.current == [v1.RdmaEntry(device="mlx4_0", hca_handles=1, hca_objects=20)]
    assert found.rdma.limit == [v1.RdmaEntry(device="mlx4_0", hca_handles=2, hca_objects=2**32 - 1)]


def test_without_its_scheduler_the_throttling_layers_counts_are_told() -> None:
    found = metrics(Readings(1, V1)).blkio  # type: ignore[union-attr]
    assert found is not None
    read, write = found.io_service_bytes_recursive
    assert ((read.op, read.major, read.minor, read.value), write.op) == (("Read", 8, 0, 4096), "Write")
    assert [entry.value for entry in found.io_serviced_recursive] == [1]
    cfq = {**V1, "blkio.io_service_bytes_recursive": "8:0 Read 1", "blkio.sectors_recursive": "8:0 2"}
    scheduled = metrics(Readings(1, cfq)).blkio  # type: ignore[union-attr]
    assert scheduled is not None
    assert [entry.value for entry in scheduled.io_service_bytes_recursive] == [1]
    assert [(entry.op, entry.value) for entry in scheduled.sectors_recursive] == [("", 2)]


def test_version_2() -> None:
    found = metrics(Readings(2, V2))
    assert isinstance(found, v2.Metrics)
    assert found.pids == v2.PidsStat(current=3, limit=2**64 - 1)
    assert found.cpu is not None and found.cpu.psi is not None
    assert (found.cpu.usage_usec, found.cpu.throttled_usec, found.cpu.nr_bursts) == (300, 9, 0)
    assert found.cpu.psi.some == v2.PsiData(avg10=0.5, avg60=0.25, avg300=0.0, total=77)
    memory = found.memory
    assert memory is not None and memory.psi is None
    assert (memory.anon, memory.file, memory.inactive_file, memory.pgfault) == (4096, 8192, 1024, 12)
    assert (memory.usage, memory.usage_limit, memory.max_usage) == (16384, 2**64 - 1, 32768)
    assert (memory.swap_limit, memory.swap_max_usage) == (0, 0)
    assert found.memory_events == v2.MemoryEvents(max=3, oom=1, oom_kill=1)
    assert found.io is not None
    assert found.io.usage == [v2.IoEntry(8, 0, rbytes=4096, rios=1)]
    assert found.hugetlb == [v2.HugeTlbStat(current=2097152, max=2**64 - 1, pagesize="2MB", failcnt=5)]


@pytest.mark.parametrize("version", [1, 2])
def test_a_kernel_that_counts_nothing(version: int) -> None:
    found = metrics(Readings(version, {}))
    assert (found.hugetlb, found.cpu is not None) == ([], True)
