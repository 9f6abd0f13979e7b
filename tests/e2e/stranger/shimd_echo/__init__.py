"""A stranger's engine with a part in C. Its programs say their arguments, and exit with how many there are."""

from pathlib import Path
from typing import ClassVar

from shimd.shim import BrokenArtifact, Invocation, Packable, UnsupportedFeature, pack


class EchoEngine:
    name: ClassVar[str] = "echo"

    def version(self) -> str:
        return "1"

    def warm(self) -> None:
        pass

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        artifact.write_bytes(wasm)

    def load(self, artifact: Path) -> bytes:
        if not artifact.read_bytes():
            raise BrokenArtifact(f"the module {artifact} does not load: it is empty")
        return artifact.read_bytes()

    def check(self, module: bytes | None, invocation: Invocation) -> None:
        if invocation.entry != "_start":
            raise UnsupportedFeature(f"echo has no function {invocation.entry}")

    def run(self, module: bytes, invocation: Invocation) -> int:
        print("Python:", *invocation.args[1:], flush=True)
        return len(invocation.args)

    def library(self) -> list[str]:
        return [str(Path(__file__).with_name("echo.so")), "C:"]

    def pack(self, artifact: Path, invocation: Invocation) -> bytes | None:
        self.check(None, invocation)
        if invocation.args[1:2] == ["python"]:
            return None
        args: list[Packable] = [arg.encode() for arg in invocation.args]
        return pack((artifact.name.encode(), len(args), args))
