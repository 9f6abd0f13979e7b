"""wasmer by the PyPI package ``wasmer-sdk``.

The binding maps no host directories: the guest's file system is in memory. Files of the container that only have to be
read are copied into it; what would have to be shared both ways is refused, naming the way out. It is asyncio from end
to end and starts threads with its first object, so everything but the import happens in :meth:`SdkEngine.run`.
"""

import asyncio
import os
import platform
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from shimd.engine import (
    BrokenArtifact,
    EngineError,
    GuestTrap,
    InvalidModule,
    Invocation,
    UnsupportedFeature,
)
from shimd.engines.core import as_binary, load_text_format
from shimd.formats.outline import Outline

if TYPE_CHECKING:
    import wasmer_sdk

_MODULE = "module"
#: Bumped when the files of an artefact change.
_LAYOUT = 1
_WAY_OUT = "use the wasmtime engine"
#: Mounted read-write into every pod, though apps only read them: a copy is as good.
_KEPT_BY_KUBELET = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/shm", "/dev/termination-log")
#: Never copied: they are not data.
_NOT_DATA = ("/proc", "/sys", "/dev")
#: Most bytes that are copied from a container's files, unless SHIMD_WASMER_COPY_LIMIT says otherwise.
_COPY_LIMIT = 64 << 20


@dataclass
class SdkProgram:
    wasm: bytes
    directory: int
    """The artefact's directory: the engine finds the compiled form in it by the module's digest."""


class SdkEngine:
    name: ClassVar[str] = "wasmer"

    def version(self) -> str:
        from importlib.metadata import version  # not for workers

        return f"{version('wasmer-sdk')}-{_LAYOUT}-{platform.machine()}"

    def warm(self) -> None:
        import wasmer_sdk  # noqa: F401 — importing is safe to share by fork, any object of it is not

    def load_compiler(self, *, text: bool) -> None:
        if text:
            load_text_format()

    def foresee(self, program: Outline, runs_on: str) -> None:
        from shimd.engines import foresight  # in compile workers only

        foresight.for_wasmer(program)

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        wasm = as_binary(wasm, "wasmer")
        artifact.mkdir()
        (artifact / "module.wasm").write_bytes(wasm)
        (artifact / "length").write_text(str(len(wasm)))
        asyncio.run(_compile(wasm, artifact))

    def load(self, artifact: Path) -> SdkProgram:
        try:
            wasm = (artifact / "module.wasm").read_bytes()
            if str(len(wasm)) != (artifact / "length").read_text():
                raise BrokenArtifact("the compiled module does not load: module.wasm is not whole")
            return SdkProgram(wasm, os.open(artifact, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            raise BrokenArtifact(f"the compiled module does not load: {error.strerror}") from None

    def check(self, module: SdkProgram, invocation: Invocation) -> None:
        if invocation.entry != "_start":
            raise UnsupportedFeature(
                f"wasmer's binding calls no function but _start: for {invocation.entry}, {_WAY_OUT}", use="wasmtime"
            )
        for preopen in invocation.preopens:
            if preopen.guest != "/" and not preopen.read_only and not preopen.guest.startswith(_KEPT_BY_KUBELET):
                raise UnsupportedFeature(
                    f"wasmer's binding cannot share {preopen.guest} read-write: mount it read-only, or {_WAY_OUT}",
                    use="wasmtime",
                )

    def run(self, module: SdkProgram, invocation: Invocation) -> int:
        return asyncio.run(_run(module, collect(invocation), invocation))


async def _package(
    client: "wasmer_sdk.Wasmer", wasm: bytes, name: str, files: Mapping[str, bytes]
) -> "wasmer_sdk.Package":
    import wasmer_sdk

    return await client.packages.create(
        wasmer_sdk.PackageDefinition(
            modules={_MODULE: wasm},
            commands={name: wasmer_sdk.PackageCommandDefinition(module=_MODULE)},
            files=files,
        )
    )


async def _compile(wasm: bytes, artifact: Path) -> None:
    """Have the engine fill its cache: it compiles when a command starts, and this one's time is up at once."""
    import wasmer_sdk

    client = wasmer_sdk.Wasmer(cache_root=artifact / "cache")
    try:
        package = await _package(client, wasm, "app", {})
    except wasmer_sdk.WasmerError as error:
        raise InvalidModule(f"not valid WebAssembly: {_sentence(error).rpartition('``: ')[2]}") from None
    try:
        sandbox = await client.sandboxes.create(packages=[package])
        process = await sandbox.command("app").spawn(timeout=0, stdout="discard", stderr="discard")
        with suppress(wasmer_sdk.WasmerError):
            await process.wait()
    except wasmer_sdk.WasmerError as error:
        raise InvalidModule(_sentence(error)) from None


def command_name(program: str) -> str:
    """Returns the guest's ``argv[0]``: the file's name, in the characters that the binding allows."""
    name = re.sub(r"[^A-Za-z0-9_.+-]", "_", program.rstrip("/").rpartition("/")[2])
    return name if name.strip(".") else "app"


async def _run(module: SdkProgram, files: Mapping[str, bytes], invocation: Invocation) -> int:
    import wasmer_sdk

    try:
        client = wasmer_sdk.Wasmer(cache_root=f"/proc/self/fd/{module.directory}/cache")
        name = command_name(invocation.args[0])
        package = await _package(client, module.wasm, name, files)
        network = wasmer_sdk.NetworkPolicy.HOST if invocation.network else wasmer_sdk.NetworkPolicy.DISABLED
        sandbox = await client.sandboxes.create(packages=[package], network=network)
        command = sandbox.command(name, invocation.args[1:], cwd=invocation.cwd, env=dict(invocation.env))
        process = await command.spawn(stdin="pipe" if _has_input() else "closed")
    except wasmer_sdk.WasmerError as error:
        raise EngineError(_sentence(error)) from None
    return await _attend(process)


async def _attend(process: "wasmer_sdk.Process") -> int:
    """Move bytes until the guest has ended and all that it wrote is written."""
    import wasmer_sdk

    feeding = asyncio.ensure_future(_feed(process.stdin)) if process.stdin else None
    try:
        await asyncio.gather(_drain(process.stdout, 1), _drain(process.stderr, 2))
        output = await process.wait()
    except wasmer_sdk.WasmerError:
        raise GuestTrap("") from None  # the engine has written the trap and its backtrace to fd 2
    finally:
        if feeding:
            feeding.cancel()
    return output.exit_code & 0xFF


def _has_input() -> bool:
    try:
        return os.fstat(0).st_rdev != os.stat(os.devnull).st_rdev
    except OSError:
        return False


async def _feed(stdin: "wasmer_sdk.WritableBytes") -> None:
    import wasmer_sdk

    with suppress(wasmer_sdk.WasmerError):  # the guest has closed its stdin, or ended
        while data := await _read_input():
            await stdin.write(data)
        await stdin.close()


async def _read_input() -> bytes:
    """Read fd 0 once something is there; blocking, it is never made otherwise (a terminal shares its flags)."""
    if not stat.S_ISREG(os.fstat(0).st_mode):
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(0, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(0)
    return os.read(0, 65536)


async def _drain(stream: "wasmer_sdk.ReadableBytes | None", fd: int) -> None:
    if stream is None:
        return
    async for chunk in stream:
        data = memoryview(chunk)
        while data:
            data = data[os.write(fd, data) :]


def collect(invocation: Invocation) -> dict[str, bytes]:
    """Read the container's regular files; returns their contents, by guest path.

    :raises EngineError: they are more than may be copied
    """
    limit = int(os.environ.get("SHIMD_WASMER_COPY_LIMIT") or _COPY_LIMIT)
    files: dict[str, bytes] = {}
    known: dict[tuple[int, int], bytes] = {}
    """Contents by device and inode: what is reached by more than one path is read, and counts, once."""
    total = 0
    for host, guest in _files(invocation):
        try:
            with open(host, "rb") as file:
                status = os.fstat(file.fileno())
                own = status.st_dev, status.st_ino
                data = known[own] if own in known else file.read()
        except OSError:  # not this user's to read: then it is not there
            continue
        total += 0 if own in known else len(data)
        known[own] = data
        if total > limit:
            raise EngineError(
                f"wasmer's binding copies the container's files into memory, and there are more than {limit >> 20} MiB"
                f": raise SHIMD_WASMER_COPY_LIMIT, or {_WAY_OUT}",
                use="wasmtime",
            )
        files[guest] = data
    return files


def _files(invocation: Invocation) -> Iterator[tuple[str, str]]:
    """Yield (host path, guest path) of the regular files below the outermost preopens."""
    preopens = invocation.preopens
    for preopen in preopens:
        if preopen.guest != "/" and any(other.guest == "/" for other in preopens):
            continue  # below "/", where the kernel has mounted it
        root = "/" if invocation.contained else os.path.realpath(preopen.host)
        yield from _below(preopen.host, preopen.guest, root, frozenset())


def _below(directory: str, guest: str, root: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """Yield what is below a directory, through links as well, since the guest's own file system knows none.

    :param root: where links may lead
    :param above: the directories that it is in, by device and inode; a link to one of them has no end
    """
    try:
        status = os.stat(directory)
        names = sorted(os.listdir(directory))
    except OSError:  # not this user's to read, or gone
        return
    if (own := (status.st_dev, status.st_ino)) in above:
        return
    for name in names:
        path, there = os.path.join(directory, name), os.path.join(guest, name)
        if there in _NOT_DATA or (os.path.islink(path) and not _leads_to_data(path, root)):
            continue
        if os.path.isfile(path):
            yield path, there
        elif os.path.isdir(path):
            yield from _below(path, there, root, above | {own})


def _leads_to_data(link: str, root: str) -> bool:
    real = os.path.realpath(link)
    return _within(real, root) and not any(_within(real, top) for top in _NOT_DATA)


def _within(path: str, directory: str) -> bool:
    return os.path.commonpath((path, directory)) == directory


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())
