"""The end of a bridge where the providers are: calls come in, and each is answered by a provider's method.

A method that blocks does so on a thread, as on the guest's own under shimd's host in Python; one that is ``async`` runs
in the event loop. A connection on which something comes that cannot be is ended, and nothing else.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from functools import partial
from inspect import iscoroutinefunction
from struct import Struct, error
from typing import Any

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from shimd.component.bridge.values import pack, unpack
from shimd.component.caller import Caller
from shimd.component.objects import Objects
from shimd.component.providers import Function, Method, Providers, find, implementation
from shimd.component.results import Abandoned, Err
from shimd.component.streams import Future, Stream
from shimd.linux.passed import receive_with_descriptors

Provide = Callable[[str], Providers]
"""Returns the providers of a component, by its name."""

VERSION = 2
#: Bytes of a frame, after its length: as ``native/wasmtime/src/bridge/connection.rs`` has it.
LARGEST = 16 << 20
#: Calls of one connection at a time; its other end lets no more come.
_AT_A_TIME = 256
_HEAD = Struct(">IBI")
_CALLED, _OBJECT = Struct(">IH"), Struct(">II")
_NOTHING = b"\xc0"
#: Bytes that are read ahead.
_AHEAD = 1 << 18


class Asks(IntEnum):
    """What a frame from the worker is."""

    HELLO = 0
    CALL = 1
    DROP = 2
    CANCEL = 3
    END = 4
    READ = 5


class Tells(IntEnum):
    """What a frame to it is."""

    DONE = 0
    FAILED = 1


_Find = Callable[[], tuple[Function, list[Any]]]
"""Returns what is to be called, and with what."""


class Unusable(Exception):
    """Nothing can be answered on a connection any more."""


async def serve(ask: socket.socket, provide: Provide) -> None:
    """Serve all connections whose ends come over a socket of packets, until nobody has its other end."""
    async with anyio.create_task_group() as tasks:
        while True:
            await _readable(ask)
            data, descriptors, _flags = receive_with_descriptors(ask, 1, 1)
            for descriptor in descriptors:
                tasks.start_soon(serve_connection, socket.socket(fileno=descriptor), provide)
            if not data:
                break
        tasks.cancel_scope.cancel()


async def serve_connection(stream: socket.socket, provide: Provide) -> None:
    """Serve one connection to its end, whatever comes."""
    stream.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=stream, limit=_AHEAD)
    try:
        connection = _Connection(reader, writer, provide)
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    await connection.read(tasks)
                finally:
                    connection.abandon()
        finally:
            with anyio.CancelScope(shield=True):
                await connection.close()
    except* Unusable as unusable:
        tell(f"a connection from a guest is closed: {unusable.exceptions[0]}")
    except* OSError:  # its other end is gone
        pass
    finally:
        writer.close()


class _Guest(Objects):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        """That are under way, or are still carried out."""
        self.ended = False


class _Call(Caller):
    def __init__(self, guest: _Guest) -> None:
        super().__init__()
        self.guest = guest
        self.scope: anyio.CancelScope | None = None
        """Of what is carried out in the event loop."""
        self.made: list[int] = []
        """Objects that the guest is given with the answer."""

    def add(self, thing: Any) -> int:
        number = self.guest.add(thing)
        self.made.append(number)
        return number

    def abandon(self) -> None:
        super().abandon()
        if self.scope is not None:
            self.scope.cancel()

    def carry_out(self, function: Function, arguments: list[Any]) -> bytes:
        """On a thread of its own.

        :raises Exception: the provider did
        """
        with self.entered():
            if self.abandoned:
                raise Abandoned
            try:
                answer = function(*arguments)
            except Err as failure:
                answer = failure
            return pack(answer, self.add)


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, provide: Provide) -> None:
        self._reader, self._writer = reader, writer
        self._provide = provide
        self._providers: Providers | None = None
        self._functions: dict[bytes, Function] = {}
        self._guests: dict[int, _Guest] = {}
        self._calls: dict[int, _Call] = {}
        self._threads = anyio.CapacityLimiter(_AT_A_TIME)
        self._closing = anyio.CapacityLimiter(_AT_A_TIME)

    async def read(self, tasks: TaskGroup) -> None:
        """Read all frames, to the end.

        :raises Unusable: one is none
        """
        while True:
            try:
                length, kind, number = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
            except asyncio.IncompleteReadError as end:
                if end.partial:
                    raise Unusable("a frame breaks off") from None
                return
            size = length + 4 - _HEAD.size
            if size < 0 or length > LARGEST:
                raise Unusable(f"a frame of {length} bytes")
            try:
                payload = await self._reader.readexactly(size)
            except asyncio.IncompleteReadError:
                raise Unusable("a frame breaks off") from None
            try:
                self._take(tasks, kind, number, payload)
            except (ValueError, error) as unusable:
                raise Unusable(f"a frame that is none: {unusable}") from None

    def _take(self, tasks: TaskGroup, kind: int, number: int, payload: bytes) -> None:
        """:raises ValueError: it cannot be
        :raises error: it is too short
        """
        if (kind == Asks.HELLO) != (self._providers is None):
            raise ValueError("the first one says which version the wire has, and no other")
        match kind:
            case Asks.HELLO:
                if number != VERSION:
                    raise ValueError(f"the wire has version {VERSION} here, and {number} there")
                self._providers = self._provided(payload.decode())
            case Asks.CALL:
                self._call(tasks, number, payload)
            case Asks.READ:
                guest, resource = _OBJECT.unpack(payload)
                self._read(tasks, number, self._guest(guest), resource)
            case Asks.DROP:
                guest, resource = _OBJECT.unpack(payload)
                tasks.start_soon(self._drop, number, self._guest(guest), resource)
            case Asks.CANCEL:
                if call := self._calls.get(number):
                    call.abandon()
            case Asks.END:
                if guest := self._guests.pop(number, None):
                    guest.ended = True
                    if not guest.calls:
                        tasks.start_soon(self._close, guest)
            case _:
                raise ValueError(f"there is no kind {kind}")

    def _provided(self, name: str) -> Providers:
        """:raises Unusable: they cannot be made"""
        try:
            return self._provide(name)
        except Exception as failure:
            raise Unusable(f"its interfaces cannot be provided: {type(failure).__name__}: {failure}") from failure

    def abandon(self) -> None:
        """Nobody waits for any answer any more."""
        for call in self._calls.values():
            call.abandon()

    async def close(self) -> None:
        """Close what guests have left, when no call is under way any more."""
        for guest in self._guests.values():
            await self._close(guest)

    def _call(self, tasks: TaskGroup, number: int, payload: bytes) -> None:
        guest_number, length = _CALLED.unpack_from(payload)
        start = _CALLED.size + length
        name = payload[_CALLED.size : start]
        guest = self._guest(guest_number)
        arguments = unpack(memoryview(payload)[start:], guest)
        if not isinstance(arguments, list):
            raise ValueError("a call has a list of arguments")
        self._begin(tasks, number, guest, partial(self._named, name, arguments))

    def _read(self, tasks: TaskGroup, number: int, guest: _Guest, resource: int) -> None:
        of = guest.table.get(resource)
        if not isinstance(of, Stream | Future):
            raise ValueError("what is read is a stream or a future")
        self._begin(tasks, number, guest, lambda: (of.read, []))

    def _begin(self, tasks: TaskGroup, number: int, guest: _Guest, find: _Find) -> None:
        if number in self._calls:
            raise ValueError("a call has a number of its own")
        guest.calls += 1
        call = self._calls[number] = _Call(guest)
        tasks.start_soon(self._answer, number, call, find)

    def _guest(self, number: int) -> _Guest:
        return self._guests.get(number) or self._guests.setdefault(number, _Guest())

    async def _answer(self, number: int, call: _Call, find: _Find) -> None:
        kind, payload = Tells.FAILED, b""
        try:
            kind, payload = Tells.DONE, await self._carry_out(call, *find())
        except Exception as failure:  # whatever a provider raises ends its guest, and nobody else
            payload = f"{type(failure).__name__}: {failure}".encode(errors="replace")
        self._calls.pop(number)
        if call.abandoned:
            await self._undo(call)
        else:
            await self._write(kind, number, payload)
        call.guest.calls -= 1
        if call.guest.ended and not call.guest.calls:
            await self._close(call.guest)

    def _named(self, name: bytes, arguments: list[Any]) -> tuple[Function, list[Any]]:
        """:raises Exception: nobody provides it"""
        function = self._functions.get(name) or self._functions.setdefault(name, self._function(name.decode()))
        if isinstance(function, Method):
            of, *arguments = arguments
            function = function.bound(of)
        return function, arguments

    async def _carry_out(self, call: _Call, function: Function, arguments: list[Any]) -> bytes:
        """:raises Exception: the provider did"""
        if not iscoroutinefunction(function):
            return await to_thread.run_sync(call.carry_out, function, arguments, limiter=self._threads)
        return await self._await(call, function, arguments)

    async def _await(self, call: _Call, function: Function, arguments: list[Any]) -> bytes:
        """:raises Exception: the provider did, or nobody waits any more"""
        with anyio.CancelScope() as call.scope:
            try:
                answer = await function(*arguments)
            except Err as failure:
                answer = failure
            return pack(answer, call.add)
        raise Abandoned

    def _function(self, name: str) -> Function:
        """:raises LookupError: nobody provides it"""
        interface, _, function = name.partition("#")
        assert self._providers is not None
        found = implementation(find(self._providers, interface), function)
        if found is None:
            raise LookupError("it is not provided")
        return found

    async def _undo(self, call: _Call) -> None:
        """Close what the guest would have got."""
        for resource in call.made:
            await self._apart(partial(call.guest.drop, resource))

    async def _drop(self, number: int, guest: _Guest, resource: int) -> None:
        if hasattr(guest.table.get(resource), "close"):
            await self._apart(partial(guest.drop, resource))
        else:
            guest.drop(resource)
        await self._write(Tells.DONE, number, _NOTHING)

    async def _close(self, guest: _Guest) -> None:
        if any(hasattr(thing, "close") for thing in guest.table.values()):
            await self._apart(guest.close_all)

    async def _apart(self, close: Callable[[], None]) -> None:
        """Close objects on a thread, where they may wait. What is wrong with one is no guest's fault."""

        def closing() -> None:
            with Caller().entered():
                close()

        try:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(closing, limiter=self._closing)
        except Exception as failure:
            tell(f"what a guest has left cannot be closed: {type(failure).__name__}: {failure}")

    async def _write(self, kind: int, number: int, payload: bytes) -> None:
        length = len(payload) + _HEAD.size - 4
        if length > LARGEST:
            kind, payload = Tells.FAILED, f"its answer has {len(payload)} bytes, which is too much for a call".encode()
            length = len(payload) + _HEAD.size - 4
        self._writer.write(_HEAD.pack(length, kind, number) + payload)
        await self._writer.drain()


async def _readable(sock: socket.socket) -> None:
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(sock)


def tell(text: str) -> None:
    """Write a line to the app's stderr."""
    with suppress(OSError):  # nobody reads it
        os.write(2, f"shimd: {text}\n".encode(errors="replace"))
