"""What guests meet while they run: somebody who waits for what they print, connects to them, or asks them by HTTP."""

import socket
import subprocess
from select import select
from signal import SIGINT

import httpx

from tests.conformance.suite import Case, Request
from tests.e2e.box import happens
from tests.e2e.containerd import PATIENCE
from tests.e2e.http_app import answers


def begin(case: Case, process: "subprocess.Popen[bytes]") -> bytes:
    """What a guest prints before it is talked to: all of it, or what comes in time."""
    output = process.stdout
    assert output is not None
    printed = b""
    while not (printed.endswith(b"\n") if case.echo else len(printed) == len(case.prompt)):
        there, _, _ = select([output], [], [], PATIENCE)
        if not (there and (byte := output.read(1))):
            break
        printed += byte
    return printed


def echo(printed: bytes, text: str) -> str | None:
    """Send it to the address that was printed; how that failed."""
    host, _, port = printed.decode(errors="replace").strip().partition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            connection.sendall(text.encode())
            with connection.makefile("rb") as stream:
                back = stream.read(len(text)).decode(errors="replace")
    except (OSError, ValueError) as error:
        return f"printed {printed!r}, where nobody answers: {error}"
    return None if back == text else f"gave back {back!r}, not {text!r}"


def ask(address: str, case: Case, process: "subprocess.Popen[bytes]") -> str | None:
    """Ask a server all that it is to be asked, and end it; the first answer that is not as it must be."""
    listening = happens(lambda: answers(address) or process.poll() is not None, PATIENCE)
    if not listening or process.poll() is not None:
        return "it does not listen"
    wrong = (_wrong(address, Request(**request)) for request in case.requests)
    found = next((text for text in wrong if text), None)
    process.send_signal(SIGINT)
    return found


def _wrong(address: str, request: Request) -> str | None:
    url, name = f"http://{address}{request.path}", f"{request.method} {request.path}"
    try:
        answer = httpx.request(
            request.method, url, headers=request.sent, content=request.sent_body, timeout=PATIENCE, trust_env=False
        )
    except httpx.HTTPError as error:
        return f"{name}: {error!r}"
    headers = {key: answer.headers.get(key) for key in request.headers}
    got, must = (answer.status_code, headers, answer.text), (request.status, dict(request.headers), request.body)
    return None if got == must else f"{name} gave {got}, not {must}"
