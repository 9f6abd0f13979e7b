"""An author's engine whose guests run natively, by wasmtime, and import interfaces that are Python objects.

``docs/shims.md`` shows one. Its guests are those of :mod:`.wasmtime_native`; its objects are in a process beside the
guest's (:mod:`shimd.component.bridge`), which there is only where a component imports such an interface.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

from shimd.component.providers import Providers, find
from shimd.engine import Invocation, UnsupportedFeature
from shimd.engines.wasmtime_artifact import outline_of
from shimd.engines.wasmtime_native import NativeProgram, NativeWasmtime, is_portables
from shimd.formats.outline import Outline


class NativeComponents(NativeWasmtime):
    """A subclass has a ``name``, as any engine, and says what it provides; all else is here.

    A guest that imports nothing of that runs in a worker without Python.
    """

    provides: ClassVar[Mapping[str, Callable[[Invocation], object]]] = {}
    """What makes the object that an interface is given by, by the interface's name: with its version, or without, which
    serves all versions that are not there themselves. It is called when a guest first calls, in the container, and
    imports nothing any more: :meth:`warm` does."""

    def version(self) -> str:
        """Compiled programs know which interfaces there were."""
        names = hashlib.sha256("\n".join(sorted(self.provides)).encode()).hexdigest()[:12]
        return f"{super().version()}-{names}"

    def warm(self) -> None:
        from shimd.component.bridge import process  # noqa: F401

        super().warm()

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        if wasm.startswith(b"\0asm") and is_portables(outline_of(wasm)):
            raise UnsupportedFeature("the program is Spin's or Slight's, and this engine is neither", use="spin")
        super().precompile(wasm, artifact)

    def _bridged(self, program: Outline) -> list[str]:
        if not program.component:
            return []
        return [name for name, _ in program.imports if find(self.provides, name) is not None]

    def _ask(self, module: NativeProgram) -> int:
        from shimd.component.bridge.process import Process

        process = Process()
        module.begin = partial(process.start, partial(self._provide, module))
        return process.ask

    def _provide(self, module: NativeProgram, _component: str) -> Providers:
        assert module.invocation is not None
        return {name: make(module.invocation) for name, make in self.provides.items()}
