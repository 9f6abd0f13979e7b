"""Which bindings of wasmer there are: the tests run on each."""

from importlib.util import find_spec

import pytest

#: Whether wasmer is run by its native binding; else it is by that from PyPI, which has a name of its own, too.
NATIVE = find_spec("shimd_wasmer_native") is not None
#: The names of engines, one for each binding.
BINDINGS = ["wasmer", "wasmer-sdk"] if NATIVE else ["wasmer-sdk"]
native_only = pytest.mark.skipif(not NATIVE, reason="wasmer's native binding is built by cargo: run tools/setup")
