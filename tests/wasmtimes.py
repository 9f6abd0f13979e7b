"""Which of wasmtime's two hosts there are: the tests run on each."""

import pytest

from shimd.engines.wasmtime import NATIVE, PORTABLE

#: The names of engines, one for each host.
HOSTS = ["wasmtime", PORTABLE] if NATIVE else ["wasmtime"]
native_only = pytest.mark.skipif(not NATIVE, reason="wasmtime's native host is not here: make wasmtime-native")
