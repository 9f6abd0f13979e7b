"""Where metrics are asked for, as the variables say."""

import subprocess
import sys

import pytest

from shimd.errors import InvalidArgument
from shimd.supervisor.metrics.address import Address, address

_CERTIFICATE = {"SHIMD_METRICS_CERT": "/c", "SHIMD_METRICS_KEY": "/k"}


@pytest.mark.parametrize(
    ("text", "more", "found", "shown"),
    [
        ("127.0.0.1:9464", {}, Address("127.0.0.1", 9464), "http://127.0.0.1:9464/metrics"),
        ("localhost:1", {}, Address("127.0.0.1", 1), "http://127.0.0.1:1/metrics"),
        ("[::1]:9464", {}, Address("::1", 9464), "http://[::1]:9464/metrics"),
        ("unix:/run/m.sock", {}, Address(path="/run/m.sock"), "unix:/run/m.sock"),
        (
            "0.0.0.0:9464",
            _CERTIFICATE,
            Address("0.0.0.0", 9464, certificate="/c", key="/k"),
            "https://0.0.0.0:9464/metrics",
        ),
    ],
)
def test_addresses(text: str, more: dict[str, str], found: Address, shown: str) -> None:
    assert address({"SHIMD_METRICS_ADDR": text, **more}) == found
    assert str(found) == shown


def test_nowhere_by_default() -> None:
    assert address({}) is None
    assert address({"SHIMD_METRICS_ADDR": " "}) is None


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"SHIMD_METRICS_ADDR": "9464"}, "neither ADDRESS:PORT nor unix:PATH"),
        ({"SHIMD_METRICS_ADDR": "127.0.0.1:99999"}, "neither ADDRESS:PORT nor unix:PATH"),
        ({"SHIMD_METRICS_ADDR": "node.example:9464"}, "node.example is no address of this machine"),
        ({"SHIMD_METRICS_ADDR": "unix:metrics.sock"}, "a socket's path is absolute"),
        ({"SHIMD_METRICS_ADDR": "10.0.0.1:9464"}, "takes TLS: SHIMD_METRICS_CERT"),
        ({"SHIMD_METRICS_ADDR": "[::]:9464"}, "takes TLS: SHIMD_METRICS_CERT"),
        ({"SHIMD_METRICS_ADDR": "127.0.0.1:1", "SHIMD_METRICS_CERT": "/c"}, "go together"),
        ({"SHIMD_METRICS_ADDR": "127.0.0.1:1", "SHIMD_METRICS_CLIENT_CA": "/c"}, "of no effect without"),
    ],
)
def test_what_is_wrong(env: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        address(env)


def test_nothing_is_loaded_where_nobody_asks() -> None:
    """The daemon with all that it imports has neither the library nor an HTTP server."""
    unwanted = {"prometheus_client", "wsgiref", "opentelemetry", "shimd.supervisor.tracing.spans"}
    program = f"import sys, shimd.supervisor.serve; print(*({unwanted} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
