"""What OpenTelemetry's collector passes on, as JSON of OTLP."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


def values(attributes: list[Json]) -> Json:
    """Attributes of OTLP by their names."""
    return {it["key"]: next(iter(it["value"].values())) for it in attributes}


@dataclass
class Sink:
    """A server of the test's own, to which the collector passes on; and which guests and it ask for other things."""

    address: str
    taken: list[tuple[str, Json]] = field(default_factory=list)
    """The paths and what was sent there."""
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    """The headers of other requests, by their paths."""

    def _found(self, signal: str, *names: str) -> Iterator[tuple[Json, Json]]:
        """All records of a signal, each with the attributes of its resource."""
        outer, inner, records = names
        for path, sent in [*self.taken]:
            for resource in sent[outer] if path == f"/v1/{signal}" else ():
                for scope in resource[inner]:
                    for record in scope[records]:
                        yield values(resource["resource"]["attributes"]), record

    def spans(self) -> list[Json]:
        """With attributes by their names, and of their resource."""
        found = self._found("traces", "resourceSpans", "scopeSpans", "spans")
        return [span | {"told": values(span.get("attributes", [])), "of": of} for of, span in found]

    def counts(self, name: str) -> dict[tuple[str, ...], int]:
        """The last count of a metric for the values of its attributes, in the order of their names."""
        found = {}
        for _of, metric in self._found("metrics", "resourceMetrics", "scopeMetrics", "metrics"):
            for point in metric["sum"]["dataPoints"] if metric["name"] == name else ():
                found[tuple(value for _name, value in sorted(values(point["attributes"]).items()))] = int(
                    point["asInt"]
                )
        return found

    def lines(self) -> list[Json]:
        """The log."""
        found = self._found("logs", "resourceLogs", "scopeLogs", "logRecords")
        return [line | {"told": values(line["attributes"]), "of": of} for of, line in found]


@contextmanager
def sink() -> Iterator[Sink]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path.startswith("/v1/"):
                it.taken.append((self.path, body))
            self._answer({} if self.path.startswith("/v1/") else _INFERRED)

        def do_GET(self) -> None:
            self._answer({})

        def _answer(self, answer: Json) -> None:
            it.headers[self.path] = {name.lower(): value for name, value in self.headers.items()}
            body = json.dumps(answer).encode()
            self.send_response(404 if self.path == "/missing" else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with listening(Handler) as address:
        it = Sink(address)
        yield it


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server of the test's own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


_INFERRED = {"text": "hi", "usage": {"promptTokenCount": 1, "generatedTokenCount": 2}}
