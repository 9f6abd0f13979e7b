"""The supervisor's end of the keeper (``shimd/keeper/keeper.c``): what is given to it outlives the supervisor.

What :meth:`Keeper.keep` has sent is kept, whatever becomes of this process the moment after. A keeper that is killed is
replaced by another, which is given everything anew.

So is one of another version, or another program than the one that is installed: an upgrade's. It goes on without a
name, as the parent of its children, which we hear of until the last of them has ended.
"""

import errno
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import anyio

from shimd import keeper, paths
from shimd.errors import ShimdError, Unavailable, reason
from shimd.linux.memory_file import memory_file
from shimd.linux.pidfd import start_time
from shimd.linux.program import runs
from shimd.log import logger
from shimd.protocol.keeper import HANDS_OVER, REMOVES, VERSION, Kind, Packet, encode, encode_command
from shimd.supervisor.background import Background
from shimd.supervisor.recovery import alone
from shimd.supervisor.recovery.exits import Exits
from shimd.supervisor.recovery.keeper_link import Link, acquaint, close_all, connect, launch, reach
from shimd.supervisor.recovery.keeping import NotKept
from shimd.supervisor.recovery.next_life import restart_command
from shimd.supervisor.workers.watchdog import until_silent

_log = logger(__name__)
#: Seconds: before another attempt at what there was no memory or descriptor for; the longest pause between two starts.
_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
#: Seconds for which a child waits for the keeper to be there again, before it becomes our own.
_PATIENCE = 5.0
#: Seconds that :meth:`Keeper.keep_soon` may take.
_SOON = 0.1
#: Seconds until what it is to hold is held here.
_HOLDING = 1.0
#: Seconds for which who ends waits for room to say so.
_LAST_WORD = 1.0


#: Descriptors that the keeper alone has, for now: it has opened them.
_ITS_OWN = (-1,)


class _Pending:
    """A child that was asked for, or an error's number."""

    def __init__(self) -> None:
        self.known = anyio.Event()
        self.result: int | OSError = ConnectionResetError(errno.ECONNRESET, "the keeper is gone")

    def resolve(self, result: int | OSError) -> None:
        self.result = result
        self.known.set()


class Keeper:
    """Made by :meth:`open`."""

    def __init__(self, tasks: Background, program: Path | None) -> None:
        self.kept: dict[str, list[int]] = {}
        """What an earlier supervisor left and nobody has taken yet; the descriptors are ours to close."""
        self.available = program is not None
        """Whether there is a program (there was a C compiler at the installation); if not, nothing is kept."""
        self.replaced: list[Callable[[], None]] = []
        """Called when another keeper has taken the place of one that was killed, whose children are not its."""
        self._tasks = tasks
        self._program = program
        self._link: Link | None = None
        self._older: dict[Path, Link] = {}
        """Those that have been replaced, by their sockets."""
        self._connected = anyio.Event()
        self._held: dict[str, tuple[int, ...]] = {}
        self._deaf: tuple[Link, int] | None = None
        """A link that did not answer in time, and how often it had been heard then."""
        self._here = NotKept()
        """Names for which there was no keeper."""
        self._unsent: dict[str, None] = {}
        """Names whose state the keeper has not been told yet, in the order of the changes."""
        self._soon: set[str] = set()
        """Names of which it knows nothing, and will soon if they are still kept then."""
        self._waiting = False
        """Whether those are waited for."""
        self._draining = False
        self._quitting = False
        self._exits = Exits()
        self._wanted: Callable[[int, int], bool] | None = None
        """``None``: it is not known yet whose exits will be asked for."""
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}

    @classmethod
    async def open(cls, tasks: Background) -> "Keeper":
        """Find the keeper, or start one; what is kept is known when this returns. It does not before, as long as
        somebody has it: who went on without would leave its owners waiting for ever.

        :raises AlreadyExists: another supervisor is connected to it
        """
        self = cls(tasks, keeper.program())
        if not self.available:
            _log.warning("there is no %s: apps will not outlive this daemon", keeper.NAME)
            return self
        for pause in _pauses():
            try:
                await self._connect(self._adopt)
                break
            except (OSError, Unavailable) as error:
                _log.error("the keeper does not work, and is tried again: %s", _words(error))
                self._disconnect()
            for name in list(self.kept):
                close_all(self.kept.pop(name))
            self._held.clear()
            if not _is_there():
                break
            await anyio.sleep(pause)
        tasks.start_soon(self._run)
        return self

    @property
    def pid(self) -> int:
        """Its pid; 0: there is none now."""
        return self._link.pid if self._link is not None else 0

    # -- descriptors

    def take(self, name: str) -> list[int] | None:
        """Hand what is kept under a name to its new owner. It stays kept, until :meth:`drop`."""
        return self.kept.pop(name, None)

    def keep(self, name: str, fds: Sequence[int]) -> None:
        """Keep descriptors under a name, instead of what it had. They stay the caller's, who leaves them open until
        :meth:`drop`: they may have to be kept anew."""
        if self._have(name, fds):
            self._change(name)

    def keep_soon(self, name: str, fds: Sequence[int]) -> None:
        """As of :meth:`Keeping.keep_soon`."""
        if name in self._held and name not in self._soon:
            self.keep(name, fds)
        elif self._have(name, fds):
            self._soon.add(name)
            if not self._waiting:
                self._waiting = True
                self._tasks.start_soon(self._keep_after_a_moment)

    def _have(self, name: str, fds: Sequence[int]) -> bool:
        """Returns whether descriptors can be kept, which are noted then."""
        if self._quitting or not self.available:
            return False
        try:
            encode(Packet(Kind.KEEP, name=name))
        except ValueError as error:
            _log.error("descriptors are not kept: %s", error)
            return False
        self._held[name] = tuple(fds)
        close_all(self.kept.pop(name, ()))
        return True

    async def _keep_after_a_moment(self) -> None:
        await anyio.sleep(_SOON)
        self._waiting = False
        self._keep_all()

    def _keep_all(self) -> None:
        """Keep now what was to be kept soon."""
        for name in list(self._soon):
            self._change(name)

    def drop(self, name: str) -> None:
        """Keep a name no longer; to be called before its descriptors are closed."""
        was_held = self._held.pop(name, None) is not None
        if name in self._soon:
            self._soon.remove(name)
        elif was_held:
            self._change(name)
        close_all(self.kept.pop(name, ()))
        self._here.drop(name)

    def drop_untaken(self) -> None:
        """Drop what nobody has taken."""
        for name in list(self.kept):
            self.drop(name)

    async def hold(self, name: str, inputs: Sequence[int], outputs: Sequence[int]) -> bool:
        """As of :meth:`Keeping.hold`. Without a keeper, or if it does not answer, they are held here."""
        error = await self._held_by_keeper(name, inputs, outputs)
        if error not in (0, errno.ENXIO):
            return await self._here.hold(name, inputs, outputs)
        close_all(self.kept.pop(name, ()))
        return not error

    def held(self, name: str, fds: Sequence[int]) -> None:
        if name in self._held:
            self._held[name] = tuple(fds)

    async def _held_by_keeper(self, name: str, inputs: Sequence[int], outputs: Sequence[int]) -> int:
        """The error that it told."""
        link = self._link
        if link is None or self._quitting or not self._connected.is_set() or self._deaf == (link, link.heard):
            return errno.ENOTCONN
        number, pending = next(self._ids), _Pending()
        packet = Packet(Kind.HOLD, number, (len(inputs),), name)
        try:
            encode(packet)
        except ValueError as error:
            _log.error("descriptors are not kept: %s", error)
            return errno.EINVAL
        self._pending[number] = pending
        self._held.setdefault(name, _ITS_OWN)
        self._unsent.pop(name, None)
        try:
            with anyio.move_on_after(_HOLDING) as waiting:
                await link.send_in_turn(packet, [*inputs, *outputs])
                await pending.known.wait()
            if waiting.cancelled_caught:
                self._deaf = (link, link.heard)
        except OSError:
            pass  # the keeper is gone, which is the result
        finally:
            self._pending.pop(number, None)
        return pending.result if isinstance(pending.result, int) else errno.ENOTCONN

    # -- children

    async def spawn(self, argv: Sequence[str], env: Mapping[str, str], fds: Mapping[int, int]) -> int:
        """Start a program, in a session of its own, as the keeper's child; or as ours, if there is none. Its pid.

        :param argv: the program's path first
        :param fds: its descriptors, by their numbers there; of 0 to 2 those not named are ``/dev/null``
        :raises OSError: it cannot be started, or the keeper died meanwhile
        """
        if self.available:
            with anyio.move_on_after(_PATIENCE):
                await self._connected.wait()
        if self._link is None:
            return self._spawn_alone(argv, env, fds)
        command = memory_file("shimd-command", encode_command(argv, env, list(fds)))
        number, pending = next(self._ids), _Pending()
        self._pending[number] = pending
        try:
            await self._link.send_in_turn(Packet(Kind.SPAWN, number), [command, *fds.values()])
            await pending.known.wait()
        except OSError:
            pass  # the keeper is gone, which is the result
        finally:
            os.close(command)
            self._pending.pop(number, None)  # a child that comes all the same is killed
        if isinstance(pending.result, OSError):
            raise pending.result
        return pending.result

    def exit_of(self, pid: int, start: int) -> tuple[int, int] | None:
        """Wait status and time (nanoseconds since the epoch) of a child, or of an orphan that became one.

        :param start: its start time (proc_pid_stat(5))
        """
        return self._exits.of(pid, start)

    def keep_exits(self, wanted: Callable[[int, int], bool]) -> None:
        """From now on only exits of processes (pid, start) that are wanted when they are told of, until they are
        forgotten (:meth:`forget_exit`)."""
        self._wanted = wanted
        for pid, start in self._exits.all():
            self._forget_unwanted(pid, start)

    def _forget_unwanted(self, pid: int, start: int) -> None:
        if self._wanted is not None and not self._wanted(pid, start):
            self.forget_exit(pid, start)

    def forget_exit(self, pid: int, start: int) -> None:
        """An exit is on record elsewhere, or of no interest. Until then it is told to every supervisor; of those
        that nobody forgets the oldest are dropped, beyond ``MAX_EXITS``."""
        for noted in (start, 0):  # it stands for any, of later processes, too
            if not self._exits.forget(pid, noted) and noted != start:
                continue
            for link in (self._link, *self._older.values()):
                if link is not None and link.version == VERSION:
                    self._tasks.start_soon(self._acknowledge, link, pid, noted)

    async def _acknowledge(self, link: Link, pid: int, start: int) -> None:
        with suppress(OSError):
            await link.send_in_turn(Packet(Kind.ACKNOWLEDGE, numbers=(pid, start)))

    def _spawn_alone(self, argv: Sequence[str], env: Mapping[str, str], fds: Mapping[int, int]) -> int:
        pid = alone.spawn(argv, env, fds)
        self._tasks.start_soon(self._follow, pid)
        return pid

    async def _follow(self, pid: int) -> None:
        try:
            start = start_time(pid)
        except OSError:
            start = 0
        if (found := await alone.ended(pid)) is not None:
            self._exits.note(pid, start, *found)

    # -- the end

    async def told(self) -> None:
        """Wait, for a moment, until the keeper has been told of all that it is to keep: who ends without a further
        word leaves that to the next supervisor."""
        self._keep_all()
        if self.available:
            with anyio.move_on_after(_LAST_WORD) as waiting:
                while not self._connected.is_set() or self._unsent:  # noqa: ASYNC110 — it is soon, or never
                    await anyio.sleep(_PAUSE / 100)
            if waiting.cancelled_caught:
                _log.error("the keeper could not be told of %d changes", len(self._unsent))

    def quit(self) -> None:
        """Nothing is left to keep: the keeper closes all, and ends when it has no children."""
        for name in list(self.kept):
            close_all(self.kept.pop(name))
        self._quitting = True
        self._held.clear()
        self._soon.clear()
        self._unsent.clear()
        if self._link is not None:
            _say_last(self._link, Packet(Kind.QUIT, numbers=(REMOVES,)))
        for link in self._older.values():
            _say_last(link, Packet(Kind.QUIT))

    # -- the connection

    async def _run(self) -> None:
        """Hear the keeper, and replace it when it is gone, or does not answer."""
        try:
            while True:
                if self._link is not None:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(_watch, self._link, tasks.cancel_scope)
                        await self._hear()
                        tasks.cancel_scope.cancel()
                if self._quitting:
                    return
                await self._replace()
        finally:
            self._disconnect()

    async def _hear(self) -> None:
        while (link := self._link) is not None:
            if (received := await _received(link)) is None:
                return
            self._dispatch(*received)

    async def _replace(self) -> None:
        pid = self._link.pid if self._link is not None else 0
        self._disconnect()
        for pause in _pauses():
            try:
                link = await self._connect(self._discard)
                break
            except (OSError, ShimdError) as error:
                _log.error("the keeper is gone, and no other can be started: %s", _words(error))
                self._disconnect()
            await anyio.sleep(pause)
        self._soon.clear()
        self._unsent = dict.fromkeys([*self._unsent, *self._held])
        self._flush()
        if link.pid != pid:
            if pid:
                _log.error("the keeper, pid %d, is gone: another one, pid %d, has all", pid, link.pid)
            for callback in self.replaced:
                callback()

    async def _connect(self, have: Callable[[str, list[int]], None]) -> Link:
        """Find the keeper, or start one, and learn what it has.

        A keeper of another version or program is replaced. It is found until its last child has ended.

        :raises OSError: it does not start, or something is short
        :raises ShimdError: it is gone, or another supervisor is connected
        """
        path, command = paths.keeper_socket(), restart_command()
        with ExitStack() as failed:
            try:
                others = await self._reach_older(failed)
                link = await reach(path, command)
                if link is not None and not self._is_current(link):
                    failed.callback(link.close)
                    _log.info("the keeper, pid %d, is of another release, and is replaced", link.pid)
                    path.rename(old := paths.old_keeper_socket(link.pid))
                    others[old], link = link, None
                self._link = link or await self._launch(path, command)
            finally:
                close_all(command)
            await self._inherit(self._link, have)
            for other in others.values():
                await self._inherit(other, self._adopt_anew)
                await self._all_sent()
                await other.send_in_turn(Packet(Kind.QUIT, numbers=(HANDS_OVER,)))
            failed.pop_all()
        self._older.update(others)
        for old, other in others.items():
            self._tasks.start_soon(self._hear_older, old, other)
        self._connected.set()
        if not self._link.complete:
            self._tasks.start_soon(self._greet_again, self._link)
        return self._link

    def _is_current(self, link: Link) -> bool:
        assert self._program is not None
        return link.version == VERSION and runs(link.pid, self._program)

    async def _reach_older(self, failed: ExitStack) -> dict[Path, Link]:
        """Those of which we do not hear yet. What one of them still has is given to the current one: that has failed
        before."""
        found: dict[Path, Link] = {}
        for old in paths.old_keeper_sockets():
            if old in self._older:
                continue
            link = await reach(old, ())
            if link is None:  # its last child has ended
                old.unlink(missing_ok=True)
            else:
                found[old] = link
                failed.callback(link.close)
        return found

    async def _hear_older(self, path: Path, link: Link) -> None:
        """Until its last child has ended, and it with it."""
        try:
            while (received := await _received(link)) is not None:
                self._dispatch(*received)
            path.unlink(missing_ok=True)
        finally:
            self._older.pop(path, None)
            link.close()

    async def _greet_again(self, link: Link) -> None:
        """It had no room for what starts us again."""
        while self._link is link and not link.complete and not self._quitting:
            _log.error("the keeper has no room for the command that starts this daemon again, and is told it anew")
            await anyio.sleep(10 * _PAUSE)
            with suppress(OSError):
                command = restart_command()
                try:
                    link.greet(command)
                finally:
                    close_all(command)

    async def _launch(self, path: Path, command: Sequence[int]) -> Link:
        assert self._program is not None
        sock, pid = launch(path, self._program)
        self._tasks.start_soon(_bury, pid)
        link = Link(sock)
        try:
            if not await acquaint(link, pid, command):
                raise Unavailable("a new keeper does not answer")
        except BaseException:
            link.close()
            raise
        return link

    async def _inherit(self, link: Link, have: Callable[[str, list[int]], None]) -> None:
        """Have a keeper list what it has.

        :raises Unavailable: it is gone
        """
        await link.send_in_turn(Packet(Kind.LIST))
        while (received := await link.receive()) is not None:
            packet, fds = received
            if packet.kind is Kind.KEPT:
                have(packet.name, fds)
            else:
                self._dispatch(packet, fds)
            if packet.kind is Kind.LISTED:
                return
        raise Unavailable("the keeper is gone")

    def _adopt(self, name: str, fds: list[int]) -> None:
        if name in self._held:
            close_all(fds)
        elif fds:
            self.kept[name] = fds
            self._held[name] = tuple(fds)
        else:  # it never had any: whose they are must not wait for ever
            self._change(name)

    def _adopt_anew(self, name: str, fds: list[int]) -> None:
        self._adopt(name, fds)
        if name in self._held:
            self._change(name)

    def _discard(self, name: str, fds: list[int]) -> None:
        close_all(fds)
        if name not in self._held:
            self._unsent[name] = None

    def _dispatch(self, packet: Packet, fds: list[int]) -> None:
        close_all(fds)
        match packet.kind:
            case Kind.HELLO if self._link is not None:
                self._link.met(packet)
            case Kind.EXITED:
                self._exits.note(*packet.numbers)
                self._forget_unwanted(*packet.numbers[:2])
            case Kind.SPAWNED:
                self._spawned(packet.id, *packet.numbers[:2])
            case Kind.HELD:
                if (pending := self._pending.pop(packet.id, None)) is not None:
                    pending.resolve(packet.numbers[0])
            case Kind.FAILED if packet.id:
                error = packet.numbers[0]
                if (pending := self._pending.pop(packet.id, None)) is not None:
                    pending.resolve(OSError(error, os.strerror(error)))
            case Kind.FAILED:
                _log.error("the keeper cannot keep %s: %s", packet.name, os.strerror(packet.numbers[0]))
                self._tasks.start_soon(self._try_again, packet.name)

    def _spawned(self, number: int, pid: int, start: int) -> None:
        if (pending := self._pending.pop(number, None)) is not None:
            pending.resolve(pid)
        elif self._exits.of(pid, start) is None:  # whoever asked was cancelled
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _try_again(self, name: str) -> None:
        await anyio.sleep(10 * _PAUSE)
        if name in self._held:
            self._change(name)

    def _disconnect(self) -> None:
        self._connected = anyio.Event()
        link, self._link = self._link, None
        if link is not None:
            link.close()
        for number in list(self._pending):
            pending = self._pending.pop(number)
            pending.resolve(pending.result)

    # -- what is to be sent

    def _change(self, name: str) -> None:
        self._soon.discard(name)
        self._unsent.pop(name, None)
        self._unsent[name] = None
        if not self._draining:
            self._flush()

    def _flush(self) -> None:
        """Send what there is room for, and leave the rest to a task."""
        while self._unsent and self._link is not None:
            name = next(iter(self._unsent))
            try:
                self._tell(self._link, name)
            except OSError as error:
                if error.errno == errno.EBADF:
                    _log.error("descriptors of %s were closed before it was dropped", name)
                    del self._held[name]
                    continue  # it is dropped
                if not isinstance(error, ConnectionError) and not self._draining:
                    self._draining = True
                    self._tasks.start_soon(self._drain)
                return
            del self._unsent[name]

    def _tell(self, link: Link, name: str) -> None:
        fds = self._held.get(name)
        if fds is None:
            link.send(Packet(Kind.DROP, name=name))
        elif fds is not _ITS_OWN:
            link.send(Packet(Kind.KEEP, name=name), fds)

    async def _drain(self) -> None:
        try:
            while self._unsent and self._link is not None:
                with suppress(OSError):
                    await self._link.room()
                self._flush()
                await anyio.sleep(_PAUSE / 10)  # not as often as the kernel refuses what it has no memory for
        finally:
            self._draining = False

    async def _all_sent(self) -> None:
        while self._unsent:
            if self._link is None:
                raise Unavailable("the keeper is gone")
            await anyio.sleep(_PAUSE / 10)


async def _watch(link: Link, hearing: anyio.CancelScope) -> None:
    """Wake a keeper that does not answer, and kill it if that does not help."""
    woken = 0
    while True:
        await until_silent(link)
        number = signal.SIGKILL if link.heard == woken else signal.SIGCONT
        _log.error("the keeper, pid %d, does not answer: it gets a %s", link.pid, number.name)
        with suppress(OSError):
            os.kill(link.pid, number)
        if number is signal.SIGKILL:
            break
        woken = link.heard
    await anyio.sleep(_PATIENCE)
    hearing.cancel()  # the kernel does not let it die


async def _received(link: Link) -> tuple[Packet, list[int]] | None:
    """As :meth:`Link.receive`; what fails for want of something is tried again."""
    while True:
        try:
            return await link.receive()
        except OSError as error:
            _log.error("the keeper cannot be heard: %s", reason(error))
            await anyio.sleep(_PAUSE)


def _say_last(link: Link, packet: Packet) -> None:
    with suppress(OSError):
        link.send_last(packet, _LAST_WORD)


def _pauses() -> Iterator[float]:
    """Seconds between two attempts, for ever."""
    pause = _PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)


def _is_there() -> bool:
    """Returns whether a keeper listens, of whatever release; or that cannot be told now."""
    try:
        for path in (paths.keeper_socket(), *paths.old_keeper_sockets()):
            if (sock := connect(path)) is not None:
                sock.close()
                return True
    except OSError:
        return True
    return False


async def _bury(pid: int) -> None:
    """A keeper that we have started is our child, and no zombie when it has ended."""
    await alone.ended(pid)


def _words(error: OSError | ShimdError) -> str:
    return reason(error) if isinstance(error, OSError) else str(error)
