"""What who asks for metrics is answered."""

from prometheus_client import CollectorRegistry

from shimd.supervisor.metrics.exporter import _answer


def test_an_event_loop_that_does_not_turn() -> None:
    """Is no traceback in the daemon's log."""
    said = []

    def stuck() -> CollectorRegistry:
        raise TimeoutError

    assert _answer(stuck, {}, lambda *words: said.append(words)) == []
    assert said == [("503 Service Unavailable", [])]
