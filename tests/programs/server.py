"""What a server among the programs is asked, and what it answers."""

import time
from collections.abc import Callable, Sequence

import httpx

from tests.e2e.http_app import answers as listens

VARIABLE = "WASMTIME_HTTP_PROXY_SOCKET_ADDR"


def answers(address: str, requests: Sequence[str], ended: Callable[[], bool], patience: float) -> list[str]:
    """To each request, as soon as the server listens: status and body; none if it ended before, or does not listen.

    :param patience: seconds until it listens
    """
    deadline = time.monotonic() + patience
    while not listens(address):
        if ended() or time.monotonic() > deadline:
            return []
        time.sleep(0.1)
    return [_answer(address, request) for request in requests]


def _answer(address: str, request: str) -> str:
    method, path, *body = request.split(" ", 2)
    content = body[0] if body else None
    headers = {"content-type": "application/json"} if content else {}
    try:
        answer = httpx.request(
            method, f"http://{address}{path}", content=content, headers=headers, timeout=60, trust_env=False
        )
    except httpx.TransportError as error:
        return str(error)
    return f"{answer.status_code} {answer.text}"
