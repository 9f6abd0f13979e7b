"""Whether the daemon is measured, and where that is asked for, as its variables say: the one place that loads what that
takes."""

from typing import TYPE_CHECKING

from shimd.errors import InvalidArgument
from shimd.log import logger
from shimd.supervisor.metrics.address import Address, address
from shimd.supervisor.metrics.measures import NOTHING, Measures

if TYPE_CHECKING:
    from shimd.supervisor.metrics.exporter import Exporter
    from shimd.supervisor.supervisor import Supervisor

_log = logger(__name__)


class Metrics:
    """Of one daemon. What is wrong with it is told, and costs the metrics, not the apps."""

    def __init__(self) -> None:
        self.measures: Measures = NOTHING
        self._address: Address | None = None
        try:
            self._address = address()
        except InvalidArgument as error:
            _log.error("metrics are not served: %s", error)
        if self._address is None:
            return
        try:
            from shimd.supervisor.metrics.prometheus import PrometheusMeasures

            self.measures = PrometheusMeasures()
        except ImportError as error:
            words = "metrics are not served: prometheus-client is not on this node, or an old one"
            _log.error("%s: %s (pip install 'shimd[metrics]')", words, error)

    def exporter(self, supervisor: "Supervisor") -> "Exporter | None":
        """Returns what serves them; ``None``: nothing does."""
        if self._address is None or self.measures is NOTHING:
            return None
        from shimd.supervisor.metrics.exporter import Exporter
        from shimd.supervisor.metrics.prometheus import PrometheusMeasures

        assert isinstance(self.measures, PrometheusMeasures)
        return Exporter(self._address, self.measures, supervisor)
