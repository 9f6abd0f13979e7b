"""Load by Debian's ``wrk``: requests a second, and how long answers take."""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.share import share

#: Of latencies.
PERCENTILES = ("50", "90", "99")
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True)
class Work:
    """What is asked."""

    name: str
    path: str
    body: int = 0
    """Bytes that are posted; 0: it is a GET."""
    answer: int = 0
    """Bytes of the answer's body, at the least."""

    def script(self) -> str:
        """For wrk, in Lua."""
        if not self.body:
            return ""
        return f'wrk.method = "POST"\nwrk.body = string.rep("x", {self.body})\n'


@dataclass(frozen=True)
class Load:
    """How it was answered."""

    rate: float
    """Requests a second."""
    latencies: Sequence[float]
    """Milliseconds, by :data:`PERCENTILES`."""


class Failed(Exception):
    """Not all requests were answered well."""


def load(address: str, work: Work, connections: int, seconds: int, directory: Path) -> Load:
    """
    :param directory: for wrk's script
    :raises Failed: an answer was an error, or too short
    """
    script = directory / f"{work.name.replace(' ', '-')}.lua"
    script.write_text(work.script())
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "20", "--latency", "-s", str(script)]
    with share() as prefix:
        done = subprocess.run([*prefix, *command, f"http://{address}{work.path}"], capture_output=True, text=True)
    if done.returncode:
        raise Failed("it takes no connections")
    return _read(done.stdout, work)


def _read(said: str, work: Work) -> Load:
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    count = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m), ([\d.]+)(B|KB|MB|GB) read", said)
    latencies = [re.search(rf"\b{percentile}%\s+([\d.]+)(us|ms|s|m)", said) for percentile in PERCENTILES]
    if rate is None or count is None or not all(latencies) or count[1] == "0":
        raise Failed("no answer in time")
    if wrong := re.search(r"Socket errors: .*|Non-2xx .*", said):
        raise Failed(wrong[0])
    read = float(count[4]) * 1024 ** ("B", "KB", "MB", "GB").index(count[5])
    if read < int(count[1]) * work.answer * 0.99:  # it is told in three digits
        raise Failed("short answers")
    return Load(float(rate[1]), [float(found[1]) * _MILLISECONDS[found[2]] for found in latencies if found])
