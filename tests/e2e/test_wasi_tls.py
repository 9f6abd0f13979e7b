"""``wasi:tls`` on wasmtime's native host: a guest whose stdin and stderr are a connection, on which it speaks TLS.

Not stdout, which wasmtime writes a line at a time.
"""

import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.certificates import Certificates, made
from tests.e2e.containerd import LAUNCHERS
from tests.unit.engines.test_wasmtime_extras import DRAFT, LOGGING, command
from tests.wasmtimes import native_only

pytestmark = native_only

TLS = """(import "wasi:io/error@0.2.6" (instance $errors (export "error" (type (sub resource)))))
  (alias export $errors "error" (type $io-error))
  (import "wasi:io/poll@0.2.6" (instance $poll (export "pollable" (type $p (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $p))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:io/streams@0.2.6" (instance $streams
    (export "input-stream" (type $in (sub resource))) (export "output-stream" (type $out (sub resource)))
    (alias outer 1 $io-error (type $e))
    (type $v (variant (case "last-operation-failed" (own $e)) (case "closed")))
    (export "stream-error" (type $failed (eq $v)))
    (export "[method]input-stream.blocking-read"
      (func (param "self" (borrow $in)) (param "len" u64) (result (result (list u8) (error $failed)))))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $out)) (param "contents" (list u8)) (result (result (error $failed)))))))
  (alias export $streams "input-stream" (type $input)) (alias export $streams "output-stream" (type $output))
  (import "wasi:cli/stdin@0.2.6" (instance $stdin
    (alias outer 1 $input (type $i)) (export "get-stdin" (func (result (own $i))))))
  (import "wasi:cli/stdout@0.2.6" (instance $stdout
    (alias outer 1 $output (type $o)) (export "get-stdout" (func (result (own $o))))))
  (import "wasi:cli/stderr@0.2.6" (instance $stderr
    (alias outer 1 $output (type $o)) (export "get-stderr" (func (result (own $o))))))
  (import "wasi:tls/types@0.2.0-draft" (instance $tls
    (alias outer 1 $input (type $i)) (alias outer 1 $output (type $o)) (alias outer 1 $pollable (type $p))
    (alias outer 1 $io-error (type $e))
    (export "client-handshake" (type $handshake (sub resource)))
    (export "client-connection" (type $connection (sub resource)))
    (export "future-client-streams" (type $future (sub resource)))
    (export "[constructor]client-handshake"
      (func (param "server-name" string) (param "input" (own $i)) (param "output" (own $o)) (result (own $handshake))))
    (export "[static]client-handshake.finish" (func (param "this" (own $handshake)) (result (own $future))))
    (export "[method]future-client-streams.subscribe" (func (param "self" (borrow $future)) (result (own $p))))
    (export "[method]future-client-streams.get" (func (param "self" (borrow $future))
      (result (option (result (result (tuple (own $connection) (own $i) (own $o)) (error (own $e))))))))))"""
FUNCTIONS = {
    "stdin": ("(result i32)", '(func $stdin "get-stdin")'),
    "stdout": ("(result i32)", '(func $stdout "get-stdout")'),
    "stderr": ("(result i32)", '(func $stderr "get-stderr")'),
    "begin": ("(param i32 i32 i32 i32) (result i32)", '(func $tls "[constructor]client-handshake")'),
    "finish": ("(param i32) (result i32)", '(func $tls "[static]client-handshake.finish")'),
    "subscribe": ("(param i32) (result i32)", '(func $tls "[method]future-client-streams.subscribe")'),
    "block": ("(param i32)", '(func $poll "[method]pollable.block")'),
    "get": ("(param i32 i32)", '(func $tls "[method]future-client-streams.get")'),
    "write": ("(param i32 i32 i32 i32)", '(func $streams "[method]output-stream.blocking-write-and-flush")'),
    "read": ("(param i32 i64 i32)", '(func $streams "[method]input-stream.blocking-read")'),
}
#: To the server "GREETING": it says "app", and writes the answer. The server is not trusted: it fails.
SPEAKS = """(local $future i32)
  (local.set $future (call $finish (call $begin (i32.const 100) (i32.const 8) (call $stdin) (call $stderr))))
  (call $block (call $subscribe (local.get $future)))
  (call $get (local.get $future) (i32.const 16))
  (if (i32.or (i32.ne (i32.load8_u (i32.const 16)) (i32.const 1)) (i32.load8_u (i32.const 20))) (then unreachable))
  (if (i32.load8_u (i32.const 24)) (then (return (i32.const 1))))
  (call $write (i32.load (i32.const 36)) (i32.const 120) (i32.const 3) (i32.const 48))
  (call $read (i32.load (i32.const 32)) (i64.const 100) (i32.const 64))
  (if (i32.load8_u (i32.const 64)) (then unreachable))
  (call $write (call $stdout) (i32.load (i32.const 68)) (i32.load (i32.const 72)) (i32.const 48))"""


@pytest.fixture
def server(tmp_path: Path) -> Certificates:
    return made(tmp_path, "DNS:GREETING")


@pytest.mark.parametrize("trusted", [True, False])
def test_a_connection(tmp_path: Path, server: Certificates, trusted: bool) -> None:
    program = tmp_path / "speaks.wat"
    program.write_text(command(TLS + LOGGING % DRAFT, FUNCTIONS, SPEAKS))
    given = ["--network", "--env", f"SSL_CERT_FILE={server.authority}"] if trusted else ["--network"]
    theirs, ours = socket.socketpair()
    ours.settimeout(60)
    run = [str(LAUNCHERS / "shimd"), "run", "--engine", "wasmtime", *given, str(program)]
    with subprocess.Popen(
        run, stdin=theirs.fileno(), stdout=subprocess.PIPE, stderr=theirs.fileno(), text=True
    ) as process:
        theirs.close()
        said = _serve(ours, server)
        assert process.stdout is not None
        answer = process.stdout.read()
    expected = (0, b"app", "welcome") if trusted else (1, b"", "")
    assert (process.returncode, said, answer) == expected


def _serve(connection: socket.socket, of: Certificates) -> bytes:
    """Returns what the client says, or nothing: it ended the handshake."""
    with connection:
        try:
            secured = of.server().wrap_socket(connection, server_side=True)
        except ssl.SSLError:  # its alert is not there: what wasmtime has to write at the end is lost
            return b""
        with secured:
            heard = secured.recv(100)
            secured.sendall(b"welcome")
            return heard
