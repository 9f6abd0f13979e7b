"""Whether the daemon's spans are sent, as its variables say: the one place that loads what that takes."""

import os
from typing import TYPE_CHECKING

from shimd import otlp
from shimd.engine import InvalidSetting
from shimd.errors import ShimdError
from shimd.log import logger
from shimd.rpc import Implementation
from shimd.supervisor.threads import in_thread
from shimd.supervisor.tracing import steps

if TYPE_CHECKING:
    from shimd.supervisor.tracing.spans import Spans

_log = logger(__name__)
#: Seconds for what is not sent yet when the daemon ends.
_LAST = 1.0


class Tracing:
    """Of one daemon. What is wrong with it is told, and costs the spans, not the apps."""

    def __init__(self) -> None:
        self._spans: Spans | None = None
        try:
            protocol = otlp.protocols(os.environ).get("traces")
            if protocol is not None:
                from shimd.supervisor.tracing import spans

                self._spans = spans.Spans(protocol, os.environ)
                steps.follow(self._spans.step)
        except InvalidSetting as error:
            _log.error("spans are not sent: %s", error)
        except ImportError as error:
            words = "spans are not sent: OpenTelemetry's packages are not on this node, or old ones"
            _log.error("%s: %s (pip install 'shimd[otel]')", words, error)
        except Exception as error:  # what the libraries say of a variable's value
            _log.error("spans are not sent, by the OTEL_ variables: %s", error)

    def calls(self, engine: str, namespace: str, service: Implementation) -> Implementation:
        """Returns what is to be served in place of an engine's Task service."""
        return service if self._spans is None else self._spans.calls(engine, namespace, service)

    async def end(self) -> None:
        """Send what is left, for a moment."""
        if self._spans is not None:
            try:
                await in_thread(self._spans.end, "sending the last spans", limit=_LAST)
            except ShimdError as error:
                _log.warning("%s", error)
