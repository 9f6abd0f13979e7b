"""One cluster for the session. ``make test`` leaves these tests out: ``make test-kubernetes`` builds what they need."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import guests, images
from tests.e2e.containerd import LAUNCHERS
from tests.e2e.cri import PAUSE
from tests.e2e.leftovers import settled
from tests.kubernetes.cluster import PROGRAMS, Cluster, running

CLASSES = Path(__file__).parents[2] / "contrib/kubernetes/base/runtimeclasses.yaml"


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("guests")
    pause = images.layer({"/pause": (LAUNCHERS / "shimd-pause").read_bytes()})
    standard = guests.standard(*guests.build())
    images.save(directory / "all.tar", [*standard, images.image(PAUSE, [pause], {"Entrypoint": ["/pause"]})])
    return directory / "all.tar"


@pytest.fixture(scope="session")
def cluster(archive: Path) -> Iterator[Cluster]:
    if "SHIMD_TEST_KUBERNETES" not in os.environ or not (PROGRAMS / "kubelet").exists():
        pytest.skip("make test-kubernetes runs these")
    with running() as cluster:
        cluster.node.import_image(archive, "k8s.io")
        cluster.kubectl("label", "node", "node", "shimd.io/ready=true")
        cluster.kubectl("apply", "-f", CLASSES)
        yield cluster


@pytest.fixture(autouse=True)
def nothing_left(cluster: Cluster) -> Iterator[None]:
    """Each test deletes its pods, and nothing of them stays on the node."""
    yield
    cluster.kubectl("delete", "deployments,pods", "--all", "--grace-period=1", "--wait=true")
    assert not settled(cluster.left, 60)
