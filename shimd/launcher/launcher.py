#!/usr/bin/python3 -IS
"""containerd-shim-ENGINE-v1: what containerd executes for a runtime ``io.containerd.ENGINE.v1``.

It runs two or three times per container and is their largest single cost, so: one file, nothing imported that is not
built into the interpreter on the usual path, no clean-up at exit. ``launcher.c`` is a short cut for what happens every
time, and becomes this program (as ``shimd-launcher PROGRAM ARGUMENTS``) for all else. ``PROTOCOL.md`` is the contract
of both. Kept to old syntax, since the node's ``/usr/bin/python3`` may be older than shimd's own.
"""

# ruff: noqa: SIM105 (contextlib is what we are not importing)

import _socket
import posix
import sys

VERSION = "unknown"  # set by build.py
#: Seconds that ``delete`` grants the daemon, and then the kernel: containerd kills a ``delete`` after five.
DELETE_TIMEOUT = 2
#: Of a daemon that found another one (``serve.py``).
EXIT_RUNS_ALREADY = 3
FLAGS = ("namespace", "address", "publish-binary", "id", "bundle", "socket", "debug-socket")
SWITCHES = ("debug", "v", "version", "info")
FEATURES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
#: Without ``linux.mountExtensions.idmap`` containerd refuses an id-mapped mount in words that nobody understands.
#: With rro among the mount options, it takes recursive read-only mounts.
FEATURES = (
    '{"ociVersionMin":"1.0.0","ociVersionMax":"1.3.0",'
    '"hooks":["prestart","createRuntime","createContainer","startContainer","poststart","poststop"],'
    '"mountOptions":["ro","rw","bind","rbind","rro"],'
    '"linux":{"mountExtensions":{"idmap":{"enabled":false}}}}'
)


class Failure(Exception):
    """Its text is the one sentence that the operator sees."""


def main() -> int:
    program, arguments = sys.argv[0].rpartition("/")[2], sys.argv[1:]
    if program == "shimd-launcher" and arguments:
        program = arguments.pop(0)
    try:
        write(1, run(program, arguments))
    except Failure as failure:
        write(2, encode(f"{program}: {failure}"))
        return 1
    except OSError as error:
        where = decode(error.filename) + ": " if error.filename else ""
        write(2, encode(f"{program}: {where}{error.strerror or error}"))
        return 1
    return 0


def run(program: str, argv: "list[str]") -> bytes:
    """Returns what is to be printed on stdout."""
    prefix, _, name = program.partition("containerd-shim-")
    engine, _, version = name.rpartition("-v")
    if prefix or not engine or not version.isdigit():
        raise Failure("the program must be called containerd-shim-ENGINE-vN")
    flags, action = parse(argv)
    if "v" in flags or "version" in flags:
        return encode(f"{program}:\n  Version:  {VERSION}\n  Launcher: Python\n")
    if "info" in flags:
        return runtime_info(f"io.containerd.{engine}.v{version}")
    if action not in ("start", "delete"):
        raise Failure(f"the action must be start or delete, not {action!r}" if action else "the action is missing")
    for name in ("namespace", "id"):
        if not flags.get(name):
            raise Failure(f"the flag -{name} is missing")
    return start(engine, flags) if action == "start" else delete(engine, flags)


def parse(argv: "list[str]") -> "tuple[dict[str, str], str]":
    """Flags and the action, by the rules of Go's flag package: ``-f v``, ``-f=v``, one dash or two."""
    flags: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        if word == "--":
            return flags, next(words, "")
        if word[:1] != "-" or word == "-":
            return flags, word
        name, equals, value = word[2 if word[:2] == "--" else 1 :].partition("=")
        if name in FLAGS:
            value = value if equals else next(words, "")
        elif name not in SWITCHES:
            raise Failure(f"unknown flag -{name}")
        if name in FLAGS or value not in ("false", "0"):
            flags[name] = value
    return flags, ""


def start(engine: str, flags: "dict[str, str]") -> bytes:
    if "bundle" in flags:
        posix.chdir(flags["bundle"])
    request = encode_request("start", engine, flags)
    seconds = environment("SHIMD_LAUNCH_TIMEOUT", "10")
    if not seconds.isdigit() or int(seconds) == 0:
        raise Failure("SHIMD_LAUNCH_TIMEOUT must be a number of seconds")
    timeout = int(seconds)
    reply = exchange(request, timeout) or start_and_exchange(request, timeout)
    status, _, address = reply.partition(b" ")
    if status != b"ok" or not address:
        raise Failure(decode(address if status == b"error" else b"shimd gave an answer that makes no sense"))
    fd = posix.open(".address", posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o644)
    write(fd, address)
    posix.close(fd)
    posix.rename(".address", "address")
    return address


def delete(engine: str, flags: "dict[str, str]") -> bytes:
    try:
        if flags.get("bundle"):
            posix.chdir(flags["bundle"])
        record = read("shimd.task")
    except FileNotFoundError:
        return delete_response(0)
    try:
        reply = exchange(encode_request("delete", engine, flags), DELETE_TIMEOUT).split()
    except (Failure, OSError):
        reply = []
    if len(reply) == 5 and reply[0] == b"ok" and all(field.isdigit() for field in reply[1:]):
        return delete_response(*map(int, reply[1:]))
    hooks = claimed_hooks()
    pid = clean_up(record)
    run_poststop(flags["id"], hooks)
    return delete_response(pid)


# --- the daemon ------------------------------------------------------------------------------------------------------


def encode_request(action: str, engine: str, flags: "dict[str, str]") -> bytes:
    grpc = flags.get("address") or environment("GRPC_ADDRESS", "")
    ttrpc = environment("TTRPC_ADDRESS", grpc + ".ttrpc")
    fields = (action, engine, flags["namespace"], ttrpc, grpc, flags["id"], posix.getcwd())
    return encode("".join(field + "\0" for field in fields))


def runtime_file(name: str) -> str:
    return environment("SHIMD_RUNTIME_DIR", "/run/shimd") + "/" + name


def exchange(request: bytes, timeout: int) -> bytes:
    """The daemon's reply; nothing if there is no daemon, or it died over the request."""
    path = runtime_file("launch.sock")
    if len(encode(path)) > 107:
        raise Failure(f"{path} is longer than a socket's name may be: SHIMD_RUNTIME_DIR must be shorter")
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    # Not settimeout(): a non-blocking connect fails at once when the daemon's backlog is full.
    long = (sys.maxsize.bit_length() + 1) // 8
    limit = timeout.to_bytes(long, sys.byteorder) + bytes(long)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, limit)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, limit)
    reply, chunk = b"", b"?"
    try:
        sock.connect(path)
        sock.sendall(request)
        sock.shutdown(_socket.SHUT_WR)
        while chunk:
            chunk = sock.recv(65536)
            reply += chunk
    except (FileNotFoundError, ConnectionError):
        return b""
    except BlockingIOError:
        raise Failure(f"shimd does not answer at {path} within {timeout} s") from None
    except OSError as error:
        raise Failure(f"cannot reach shimd at {path}: {error.strerror}") from None
    finally:
        sock.close()
    return reply


def start_and_exchange(request: bytes, timeout: int) -> bytes:
    """As often as daemons end over the request, for as long as one may take to answer it."""
    from fcntl import LOCK_EX, flock
    from time import monotonic

    deadline = monotonic() + timeout
    make_directory(runtime_file("")[:-1], 0o700)
    lock = posix.open(runtime_file("launch.lock"), posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
    flock(lock, LOCK_EX)  # held until exit
    trouble, lasts = "", False
    while True:
        reply = exchange(request, timeout)
        if reply:  # another launcher was faster, say
            return reply
        if lasts or monotonic() > deadline:
            raise Failure(trouble or "shimd closed the connection without an answer")
        trouble, lasts = start_daemon(3 * timeout)


def start_daemon(timeout: int) -> "tuple[str, bool]":
    """Start ``shimd serve`` and wait until it is ready; a sentence if that failed, and if it would fail again."""
    from time import monotonic

    program, log, address = beside("shimd"), runtime_file("shimd.log"), runtime_file("notify.sock")
    if not posix.access(program, posix.X_OK):
        return f"shimd does not run, and there is no {program} to start it", True
    unlink(address)
    notify = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    notify.bind(address)
    notify.settimeout(0.05)
    try:
        posix.rename(log, log + ".1")
    except FileNotFoundError:
        pass
    deadline = monotonic() + timeout
    pid = posix.fork()
    if pid == 0:
        become_daemon(program, log, address)
    trouble, lasts = "", False
    while not trouble and not is_ready(notify):
        ended, status = posix.waitpid(pid, posix.WNOHANG)
        if ended:
            trouble = f"shimd ended while starting: {last_line(log)}"
            lasts = posix.WIFEXITED(status) and posix.WEXITSTATUS(status) not in (0, EXIT_RUNS_ALREADY)
        elif monotonic() > deadline:
            posix.kill(-pid, 9)
            trouble, lasts = f"shimd was not ready within {timeout} s (its log is {log})", True
    unlink(address)
    return trouble, lasts


def is_ready(notify: _socket.socket) -> bool:
    try:
        return b"READY=1" in notify.recv(65536).split(b"\n")
    except OSError:  # a timeout, by a class that differs between versions
        return False


def become_daemon(program: str, log: str, address: str) -> None:
    """Leave all that is containerd's: it waits for the end of the pipes that it gave us."""
    try:
        posix.setsid()
        output = posix.open(log, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o600)
        posix.dup2(output, 1)
        posix.dup2(output, 2)
        posix.dup2(posix.open("/dev/null", posix.O_RDONLY), 0)
        for fd in posix.listdir("/proc/self/fd"):
            if int(fd) > 2:
                close(int(fd))
        posix.chdir("/")
        posix.umask(0o022)
        posix.execve(program, [program, "serve"], daemon_environment(address))
    except OSError as error:
        write(2, encode(f"cannot run {program}: {error.strerror}\n"))
    finally:
        posix._exit(127)


def daemon_environment(address: str) -> "dict[bytes, bytes]":
    """Little of containerd's: its own NOTIFY_SOCKET, addresses and so on would mislead the daemon."""
    env = {k: v for k, v in posix.environ.items() if k == b"PATH" or k.startswith((b"SHIMD_", b"OTEL_"))}
    env[b"NOTIFY_SOCKET"] = encode(address)
    return env


# --- clean-up without the daemon -------------------------------------------------------------------------------------


def clean_up(record: bytes) -> int:
    """Undo what the task has left on the node; the pid of its init process."""
    init, _, rest = record.partition(b"\n")
    pid, _, start_time = init.partition(b" ")
    if pid.isdigit() and start_time_of(int(pid)) == start_time:
        kill(int(pid))
    cgroups = directories_of(record, b"cgroup ")
    remove_cgroups(cgroups)
    remove_cgroups(directories_of(record, b"new "), ours=False)
    unmount(posix.getcwd() + "/rootfs")
    prefix = b"native " + encode(runtime_file("native/"))
    for line in rest.splitlines():
        if line.startswith(prefix) and b"/.." not in line and not line.endswith(b"/"):
            remove_tree(decode(line[7:]))
    unlink("shimd.task")
    stop_scopes({name for name in (directory.rpartition("/")[2] for directory in cgroups) if name.endswith(".scope")})
    return int(pid) if pid.isdigit() else 0


def claimed_hooks() -> "list[int]":
    """Numbers of the poststop hooks that are ours to run. The daemon may be at it, and only slow: a hook is for the
    first who makes its file."""
    try:
        config = read("config.json")
    except OSError:
        return []
    if b'"poststop"' not in config:
        return []
    from json import loads

    hooks = (loads(config).get("hooks") or {}).get("poststop") or []
    return [number for number in range(len(hooks)) if claim(f"shimd.poststop.{number}")]


def claim(path: str) -> bool:
    try:
        posix.close(posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    except OSError:  # a disk that is full, say: rather twice than not at all
        pass
    return True


def run_poststop(id: str, numbers: "list[int]") -> None:
    """Those of the container's poststop hooks; what fails is a warning. Native containers', too: nobody asks their
    runtime."""
    if not numbers:
        return
    from json import dumps, loads

    spec = loads(read("config.json"))
    hooks = spec["hooks"]["poststop"]
    state = {
        "ociVersion": "1.3.0",
        "id": id,
        "status": "stopped",
        "bundle": posix.getcwd(),
        "annotations": spec.get("annotations") or {},
    }
    default = ["PATH=" + environment("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")]
    for index in numbers:
        hook = hooks[index]
        path, env, seconds = hook["path"], hook.get("env"), min(hook.get("timeout") or DELETE_TIMEOUT, DELETE_TIMEOUT)
        command = hook.get("args") or [path]
        trouble = run_hook(path, command, default if env is None else env, seconds, encode(dumps(state)))
        if trouble:
            write(2, encode(f"hooks.poststop[{index}] ({path}): {trouble}\n"))


def run_hook(path: str, command: "list[str]", env: "list[str]", seconds: float, state: bytes) -> str:
    """A sentence if it fails."""
    from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired

    pairs = dict(item.partition("=")[::2] for item in env)
    try:
        process = Popen(command, 0, path, PIPE, DEVNULL, env=pairs)
        try:
            process.communicate(state, seconds)
        except TimeoutExpired:
            process.kill()
            process.wait()
            return "it took too long"
    except OSError as error:
        return error.strerror or str(error)
    return f"it failed with exit status {process.returncode}" if process.returncode else ""


def directories_of(record: bytes, kind: bytes) -> "list[str]":
    prefix = kind + b"/sys/fs/cgroup/"
    lines = record.splitlines()
    return [decode(line[len(kind) :]) for line in lines if line.startswith(prefix) and line != prefix]


def start_time_of(pid: int) -> bytes:
    """Field 22 of /proc/PID/stat; the second, the command's name, may hold anything."""
    try:
        return read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19]
    except OSError:
        return b""


def remove_cgroups(directories: "list[str]", ours: bool = True) -> None:
    from time import monotonic, sleep

    deadline = monotonic() + DELETE_TIMEOUT
    while True:
        directories = [directory for directory in directories if not remove_cgroup(directory, ours)]
        if not directories or monotonic() > deadline:
            break
        sleep(0.01)
    for directory in directories:
        write(2, encode(f"the cgroup {directory} is still in use\n"))


def remove_cgroup(directory: str, ours: bool) -> bool:
    """Remove the cgroup; kill all that is in it or below, if it is ours for sure. Whether it is gone already."""
    try:
        if ours:
            empty(directory)
        posix.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def empty(directory: str) -> None:
    with posix.scandir(directory) as entries:
        children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for child in children:
        remove_cgroup(child, True)
    for pid in read(directory + "/cgroup.procs").split():
        kill(int(pid))
    thaw(directory)


def thaw(directory: str) -> None:
    """A paused process of a version 1 hierarchy does not even die of SIGKILL."""
    try:
        fd = posix.open(directory + "/freezer.state", posix.O_WRONLY | posix.O_CLOEXEC)
    except OSError:
        return
    write(fd, b"THAWED")
    posix.close(fd)


def remove_tree(directory: str) -> None:
    """Remove what runc (or another) would if it were asked; it need not be there any more."""
    try:
        with posix.scandir(directory) as entries:
            children = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for path, is_directory in children:
            remove_tree(path) if is_directory else unlink(path)
        posix.rmdir(directory)
    except OSError:
        pass


def unmount(path: str) -> None:
    escaped = encode(path)
    for char in b"\\ \t\n":
        escaped = escaped.replace(bytes((char,)), b"\\%03o" % char)
    for _ in range(16):
        points = [line.split(b" ")[4] for line in read("/proc/self/mountinfo").splitlines()]
        if escaped not in points:
            break
        execute("umount", "-l", path)


def stop_scopes(names: "set[str]") -> None:
    """systemd may find a unit's cgroup removed before it has read that it is empty, and then takes it for active."""
    for name in names:
        execute("systemctl", "--no-block", "stop", "--", name, quiet=True)  # mostly it is not loaded any more


def execute(program: str, *arguments: str, quiet: bool = False) -> None:
    child = posix.fork()
    if child == 0:
        try:
            if quiet:
                posix.dup2(posix.open("/dev/null", posix.O_WRONLY), 2)
            posix.execve("/bin/" + program, [program, *arguments], {})
        finally:
            posix._exit(127)
    posix.waitpid(child, 0)


# --- messages --------------------------------------------------------------------------------------------------------


def delete_response(pid: int, status: int = 137, seconds: int = 0, nanos: int = 0) -> bytes:
    """containerd.task.v2.DeleteResponse."""
    if not seconds:
        from time import time

        seconds, nanos = divmod(int(time() * 1e9), 10**9)
    exited_at = number(1, seconds) + number(2, nanos)
    return number(1, pid) + number(2, status) + text(3, exited_at)


def runtime_info(name: str) -> bytes:
    """containerd.types.RuntimeInfo."""
    features = text(1, encode(FEATURES_TYPE)) + text(2, encode(FEATURES))
    return text(1, encode(name)) + text(2, text(1, encode(VERSION))) + text(4, features)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b""


def text(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    return bytes((value,)) if value < 128 else bytes((value & 127 | 128,)) + varint(value >> 7)


# --- what os does, without its cost ----------------------------------------------------------------------------------


def encode(value: str) -> bytes:
    return value.encode(sys.getfilesystemencoding(), "surrogateescape")


def decode(value: "str | bytes") -> str:
    return value if isinstance(value, str) else value.decode(sys.getfilesystemencoding(), "surrogateescape")


def environment(name: str, default: str) -> str:
    return decode(posix.environ.get(encode(name)) or default)


def read(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    data, chunk = b"", b"?"
    try:
        while chunk:
            chunk = posix.read(fd, 65536)
            data += chunk
    finally:
        posix.close(fd)
    return data


def last_line(path: str) -> str:
    lines = decode(read(path)).split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def write(fd: int, data: bytes) -> None:
    while data:
        data = data[posix.write(fd, data) :]


def close(fd: int) -> None:
    try:
        posix.close(fd)
    except OSError:  # the descriptor that listed the others
        pass


def kill(pid: int) -> None:
    try:
        if pid > 0:  # 0 in cgroup.procs is a process outside of our pid namespace
            posix.kill(pid, 9)
    except ProcessLookupError:
        pass


def unlink(path: str) -> None:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass


def make_directory(path: str, mode: int) -> None:
    """And those above it; others may be doing the same."""
    parent = path.rpartition("/")[0]
    if parent:
        make_directory(parent, 0o755)
    try:
        posix.mkdir(path, mode)
    except FileExistsError:
        pass


def beside(name: str) -> str:
    """A program in the directory that this one really lives in."""
    path = sys.argv[0]
    try:
        while True:
            target = posix.readlink(path)
            path = target if target[0] == "/" else path.rpartition("/")[0] + "/" + target
    except OSError:
        return path.rpartition("/")[0] + "/" + name


if __name__ == "__main__":
    posix._exit(main())
