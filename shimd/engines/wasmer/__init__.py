"""wasmer: modules of WASI preview 1 and WASIX, by one of two bindings.

``native`` is the package ``shimd-wasmer-native``, built from ``native/wasmer``: the engine as it is, with the
container's own files. ``sdk`` is the package ``wasmer-sdk`` from PyPI, which is always there and has its limits.
"""

from typing import Any

from shimd.engine import Engine


def engine() -> Engine[Any]:
    """Returns wasmer by the native binding if that is installed, else by the one from PyPI."""
    try:
        from shimd.engines.wasmer.native import NativeEngine
    except ModuleNotFoundError as error:
        if error.name != "shimd_wasmer_native":
            raise
        from shimd.engines.wasmer.sdk import SdkEngine

        return SdkEngine()
    return NativeEngine()
