"""``critest``, the validation suite of Kubernetes' runtime interface, with a handler of one's choice.

``python -m tests.e2e.critest`` runs it with runc's and with shimd's, on containerd 2.x, and writes ``docs/critest.md``.
"""

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import images
from tests.e2e.containerd import LAUNCHERS, PATIENCE, REPOSITORY, VERSIONS, running
from tests.e2e.cri import CRICTL, PAUSE, CriContainerd

PORT = 5000
_STAGING = "gcr.io/k8s-staging-cri-tools/"
_E2E = "registry.k8s.io/e2e-test-images/"
#: Of containerd's image service, which knows no runtime handler.
SKIPPED = ("Image Manager", "Image Consistency", "Image Identifier")
_SETUID = '#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf("Effective uid: %d\\n", geteuid()); }\n'
_ACCOUNTS = (("root", 0), ("nobody", 65534), ("www-data", 33), ("default-user", 1000))
_USERS = "".join(f"{name}:x:{number}:{number}::/:/bin/sh\n" for name, number in _ACCOUNTS).encode()
#: Of specs that fail with runc, too.
_WHY = {
    "execSync with timeout": "looks for a process by pgrep, which Debian's busybox has not",
    "host port and container port": "needs the portmap plugin of CNI, and iptables, which this node has not",
    "MaskedPaths": "masks /bin/ls, which Debian's busybox does not need for its own ls",
    "HostIpc": "looks for shared memory by ipcs, which Debian's busybox has not",
    "HostPID": "waits for a process called nginx, in whose place the suite's image has busybox",
    "ContainerPID": "waits for a process called nginx, in whose place the suite's image has busybox",
}
_GROUPS = b"root:x:0:\nwww-data:x:33:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"


@dataclass(frozen=True)
class Outcome:
    """Of one spec: ``passed``, ``failed`` or ``skipped``, and why."""

    status: str
    reason: str = ""


def archive(directory: Path) -> Path:
    """All images that the suite pulls, made of Debian's busybox."""
    busybox = Path("/bin/busybox").read_bytes()
    applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    links = {f"/bin/{name}": "busybox" for name in applets if name not in ("busybox", "ls")}
    files = {
        "/bin/busybox": busybox,
        "/bin/ls": busybox,
        "/etc/passwd": _USERS,
        "/etc/group": _GROUPS,
        "/www/index.html": b"nginx httpd\n",
    }
    base = images.layer(files, ("/tmp", "/root", "/dev", "/proc", "/sys"), links)
    env = {"Env": ["PATH=/bin"]}
    pause = images.layer({"/pause": (LAUNCHERS / "shimd-pause").read_bytes()})
    nnp = images.layer({"/nnp": _compiled(directory)}, setuid=["/nnp"])
    server = ["/bin/sh", "-c", "echo httpd; exec httpd -f -p $0 -h /www"]
    made = [
        images.image(f"{_E2E}busybox:{tag}", [base], {**env, "Cmd": ["sh"]}) for tag in ("1.29-2", "1.29-4", "1.37.0-1")
    ]
    made += [
        images.image(f"{_E2E}nginx:1.14-2", [base], {**env, "Entrypoint": [*server, "80"]}),
        images.image(f"{_E2E}httpd:2.4.39-4", [base], {**env, "Entrypoint": [*server, "80"]}),
        images.image(f"{_STAGING}hostnet-nginx-amd64:latest", [base], {**env, "Entrypoint": [*server, "12003"]}),
        images.image(f"{_STAGING}test-image-predefined-group:latest", [base], {**env, "User": "1000", "Cmd": ["sh"]}),
        images.image(f"{_E2E}nonewprivs:1.3", [base, nnp], {**env, "Entrypoint": ["/nnp"]}),
        images.image(PAUSE, [pause], {"Entrypoint": ["/pause"]}),
    ]
    images.save(directory / "critest.tar", made)
    return directory / "critest.tar"


def _compiled(directory: Path) -> bytes:
    source, program = directory / "nnp.c", directory / "nnp"
    source.write_text(_SETUID)
    subprocess.run(["gcc", "-static", "-O1", "-o", program, source], check=True)
    return program.read_bytes()


@contextmanager
def node(directory: Path) -> Iterator[CriContainerd]:
    """containerd 2.x, which pulls every image from the loopback."""
    contents = archive(directory)
    with running(VERSIONS[1], CriContainerd) as found:
        registries = found.directory / "registries/_default"
        registries.mkdir(parents=True)
        hosts = f'[host."http://127.0.0.1:{PORT}"]\ncapabilities = ["pull", "resolve"]\n'
        (registries / "hosts.toml").write_text(hosts)
        found.import_image(contents, "k8s.io")
        command = found.inside(sys.executable, "-m", "tests.e2e.registry", contents, PORT)
        registry = subprocess.Popen(command, cwd=REPOSITORY)
        try:
            _wait(found)
            yield found
        finally:
            registry.kill()
            registry.wait()


def _wait(found: CriContainerd) -> None:
    deadline = time.monotonic() + PATIENCE
    probe = found.inside("sh", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{PORT}")
    probe[probe.index("sh")] = "bash"
    while subprocess.run(probe, capture_output=True).returncode != 0:
        assert time.monotonic() < deadline, "the registry does not start"
        time.sleep(0.1)


def run(found: CriContainerd, handler: str, report: Path) -> Mapping[str, Outcome]:
    """Outcomes by spec, for one runtime handler."""
    endpoint = f"unix://{found.address}"
    command = found.inside(
        CRICTL.with_name("critest"),
        f"--runtime-endpoint={endpoint}",
        f"--image-endpoint={endpoint}",
        f"--runtime-handler={handler}",
        f"--ginkgo.junit-report={report}/report.xml",
        "--ginkgo.no-color",
        f"--ginkgo.skip={'|'.join(SKIPPED)}",
        "--ginkgo.seed=1",
    )
    with open(report / "critest.log", "w") as log:
        subprocess.run(command, stdout=log, stderr=log, env={**found.env, "HOME": str(report)}, timeout=1500)
    if not (report / "report.xml").exists():
        raise RuntimeError((report / "critest.log").read_text()[-2000:])
    return dict(_outcomes(report / "report.xml"))


def _outcomes(report: Path) -> Iterator[tuple[str, Outcome]]:
    for case in ET.parse(report).iter("testcase"):
        name = case.get("name", "")
        if not name.startswith("[It]") or any(skipped in name for skipped in SKIPPED):
            continue
        spec = name.removeprefix("[It] ").removeprefix("[k8s.io] ")
        status = {"passed": "passed", "skipped": "skipped", "pending": "skipped"}.get(case.get("status", ""), "failed")
        why = next((child.get("message") or "" for child in case if child.tag in ("failure", "skipped", "error")), "")
        yield spec, Outcome(status, why.strip().splitlines()[0][:200] if why.strip() else "")


def compare(directory: Path) -> Mapping[str, Mapping[str, Outcome]]:
    """Outcomes by handler: runc's, and shimd's, each on a node of its own."""

    def one(handler: str) -> Mapping[str, Outcome]:
        report = directory / handler
        report.mkdir()
        with node(report) as found:
            return run(found, handler, report)

    handlers = ("runc", "wasmtime")
    with ThreadPoolExecutor(len(handlers)) as pool:
        return dict(zip(handlers, pool.map(one, handlers), strict=True))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        (REPOSITORY / "docs/critest.md").write_text(_document(compare(Path(name))))


def _document(both: Mapping[str, Mapping[str, Outcome]]) -> str:
    reference, ours = both["runc"], both["wasmtime"]
    counted = {name: [o.status for o in outcomes.values()].count("passed") for name, outcomes in both.items()}
    lines = [
        "# critest",
        "",
        "The validation suite of Kubernetes' runtime interface (`sigs.k8s.io/cri-tools`), on containerd 2.x, with",
        "native images: once with the handler `runc`, once with `wasmtime`, whose sandboxes shimd holds and whose",
        "native containers it gives to `runc`. Written by `python -m tests.e2e.critest`; what passes there must pass",
        "here (`tests/e2e/test_critest.py`).",
        "",
        f"Passed: runc {counted['runc']}, shimd {counted['wasmtime']}, of {len(reference)}. Left out: "
        f"{', '.join(SKIPPED)}, which are containerd's own and know no handler.",
        "",
        "| spec | runc | shimd | why not |",
        "|---|---|---|---|",
    ]
    for spec in sorted(reference):
        mine = ours.get(spec, Outcome("missing"))
        known = next((why for part, why in _WHY.items() if part in spec and reference[spec].status == "failed"), "")
        why = (known or mine.reason or reference[spec].reason).replace("|", "\\|")
        lines.append(f"| {spec} | {reference[spec].status} | {mine.status} | {why} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
