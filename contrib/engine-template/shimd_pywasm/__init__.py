"""A shim for pywasm, a WebAssembly interpreter in Python: WASI preview 1 commands."""

import io
from pathlib import Path
from typing import Any, ClassVar

from shimd.shim import BrokenArtifact, EngineError, GuestTrap, InvalidModule, Invocation, UnsupportedFeature


class PywasmEngine:
    name: ClassVar[str] = "pywasm"

    def version(self) -> str:
        """What a compiled artefact depends on. The supervisor asks, so nothing heavy is imported."""
        from importlib.metadata import version

        return version("pywasm")

    def warm(self) -> None:
        """In the fork server, once: what is imported here is shared by all apps."""
        import pywasm  # noqa: F401

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        """Untrusted bytes in, a file out; an interpreter has nothing to compile, and only looks whether it is valid."""
        import pywasm

        try:
            pywasm.core.ModuleDesc.from_reader(io.BytesIO(wasm))
        except Exception as error:
            raise InvalidModule(f"not valid WebAssembly: {_reason(error)}") from None
        artifact.write_bytes(wasm)

    def load(self, artifact: Path) -> Any:
        """What ``precompile`` made, while the host's files are still in sight."""
        import pywasm

        try:
            return pywasm.core.ModuleDesc.from_reader(io.BytesIO(artifact.read_bytes()))
        except Exception as error:
            raise BrokenArtifact(f"the module {artifact} does not load: {_reason(error)}") from None

    def check(self, module: Any, invocation: Invocation) -> None:
        """What can be known before the app is started is an error of its creation."""
        if invocation.entry != "_start":
            raise UnsupportedFeature(f"pywasm calls no function but _start, and {invocation.entry} was asked for")
        if not any(export.name == "_start" for export in module.exps):
            raise InvalidModule("the module exports no function _start")

    def run(self, module: Any, invocation: Invocation) -> int:
        """In the app's own process, inside its container, on its only thread. Returns the exit code."""
        import pywasm

        runtime = pywasm.core.Runtime()
        directories = {preopen.guest: preopen.host for preopen in invocation.preopens}
        wasi = pywasm.wasi.Preview1([_Text(text) for text in invocation.args], directories, {})
        wasi.envs = [_Text(f"{name}={value}") for name, value in invocation.env.items()]
        wasi.bind(runtime)
        try:
            instance = runtime.instance(module)
        except KeyError as error:
            raise EngineError(f"the module imports {error}, which pywasm does not give") from None
        try:
            return int(wasi.main(runtime, instance)) & 0xFF
        except Exception as error:
            raise GuestTrap(f"wasm trap: {_reason(error)}") from None


class _Text(str):
    """pywasm counts characters where bytes are meant."""

    def __len__(self) -> int:
        return len(self.encode())


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
