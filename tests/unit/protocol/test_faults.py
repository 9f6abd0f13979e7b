"""Errors of engines as operators read them."""

import pytest

from shimd.engine import EngineError, MissingRuntime, UnsupportedFeature
from shimd.protocol.faults import describe, sentence


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EngineError("it failed"), "it failed"),
        (MissingRuntime("no library", "install it"), "no library; install it"),
        (
            UnsupportedFeature("use the wasmtime engine", use="wasmtime"),
            "use the wasmtime engine (io.containerd.wasmtime.v1)",
        ),
        (UnsupportedFeature("use the spin engine", use="spin"), "use the spin engine (io.containerd.spin.v2)"),
        (ValueError("no error of an engine's"), "no error of an engine's"),
    ],
)
def test_an_engine_that_can_is_named_with_its_runtime(error: Exception, expected: str) -> None:
    assert sentence(error) == expected


def test_messages_name_the_runtime_too() -> None:
    assert (
        describe(UnsupportedFeature("use the spin engine", use="spin")).message
        == "use the spin engine (io.containerd.spin.v2)"
    )
