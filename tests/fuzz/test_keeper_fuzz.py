"""The keeper lives, whatever is said to it, with whatever descriptors."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shimd.keeper import program
from shimd.protocol.keeper import MAX_SIZE, VERSION, Kind, Packet, encode, encode_command
from tests.unit.keeper.rig import Process, until

BOUNDED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
#: It ends by that, rightly.
QUIT = encode(Packet(Kind.QUIT))[:4]
NUMBERS = st.sampled_from([0, 1, VERSION, 2, 255, -1, (1 << 63) - 1])
NAMES = st.sampled_from(["", "a", "b", "x" * 255])
PACKETS = st.builds(
    lambda kind, id, numbers, name: encode(Packet(kind, id, numbers, name)),
    *(st.sampled_from(list(Kind)), st.integers(0, 9), st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), NAMES),
)
#: Each with contents of files that come along.
COMMANDS = st.binary(max_size=40) | st.just(encode_command(["/bin/true"], {"A": "b"}, [1]))
DATA = (PACKETS | st.binary(max_size=MAX_SIZE + 2)).filter(lambda data: data[:4] != QUIT)
SAID = st.tuples(DATA, st.lists(COMMANDS, max_size=3))


@pytest.fixture(scope="module")
def keeper() -> Iterator[Process]:
    if program() is None:
        pytest.skip("no C compiler was here")
    with tempfile.TemporaryDirectory() as directory:
        process = Process(Path(directory))
        _serves(process)
        yield process
        process.end()


@BOUNDED
@given(st.booleans(), st.lists(SAID, max_size=8))
def test_it_lives(keeper: Process, hello: bool, said: list[tuple[bytes, list[bytes]]]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(keeper.path))
        sock.settimeout(20)
        with suppress(OSError):  # it has ended the connection
            if hello:
                sock.send(encode(Packet(Kind.HELLO, 0, (VERSION, 0))))
            for data, contents in said:
                files = [os.memfd_create("fuzz") for _ in contents]
                for file, content in zip(files, contents, strict=True):
                    os.write(file, content)
                try:
                    socket.send_fds(sock, [data or b"\0"], files)
                finally:
                    for file in files:
                        os.close(file)
    _serves(keeper)


def _serves(keeper: Process) -> None:
    """Another supervisor, as soon as this one is gone; what was kept is dropped, and nothing is started again."""

    def greeted() -> bool:
        with keeper.connect(hello=False) as supervisor:
            if supervisor.hello().kind is not Kind.HELLO:
                return False
            for name in supervisor.names():
                supervisor.say(Kind.DROP, name=name)
            assert supervisor.names() == set()
            supervisor.say(Kind.KEEP, name="it stays", fds=[0])
            return True

    until(greeted, "the keeper to serve")
    assert not keeper.ended()
