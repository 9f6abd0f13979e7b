import pytest

from shimd.ttrpc import frames
from shimd.ttrpc.errors import MessageTooLarge
from shimd.ttrpc.frames import MAX_DATA, Frame, FrameReader, FrameType, OversizedFrame

FRAMES = [
    Frame(FrameType.REQUEST, 2, 1, b"first"),
    Frame(FrameType.DATA, 5, 1),
    Frame(0x7F, 0xFF, 0xFFFFFFFF, b"\x00"),
]
WIRE = b"".join(frames.encode(frame.type, frame.flags, frame.stream_id, frame.data) for frame in FRAMES)


def take(reader: FrameReader) -> list[Frame | OversizedFrame]:
    taken = []
    while (frame := reader.next()) is not None:
        taken.append(frame)
    return taken


def test_the_header_is_as_specified() -> None:
    assert frames.encode(FrameType.RESPONSE, 4, 0x01020304, b"xyz") == b"\0\0\0\x03\1\2\3\4\2\4xyz"


@pytest.mark.parametrize("size", [1, 2, 9, 10, 11, 16, len(WIRE)])
def test_portions_of_any_size_give_the_same_frames(size: int) -> None:
    reader, taken = FrameReader(), []
    for start in range(0, len(WIRE), size):
        reader.feed(WIRE[start : start + size])
        taken += take(reader)
    assert taken == FRAMES
    assert reader.unconsumed == b""


def test_what_is_not_a_whole_frame_stays() -> None:
    reader = FrameReader()
    reader.feed(WIRE[:-1])
    assert take(reader) == FRAMES[:-1]
    assert reader.unconsumed == WIRE[len(WIRE) - 11 : -1]


def test_four_mebibytes_is_the_limit() -> None:
    reader = FrameReader()
    reader.feed(frames.encode(FrameType.DATA, 0, 1, bytes(MAX_DATA)))
    assert take(reader) == [Frame(FrameType.DATA, 0, 1, bytes(MAX_DATA))]
    with pytest.raises(MessageTooLarge, match="4194305"):
        frames.encode(FrameType.DATA, 0, 1, bytes(MAX_DATA + 1))


def header(length: int, stream_id: int = 7) -> bytes:
    return length.to_bytes(4, "big") + stream_id.to_bytes(4, "big") + b"\1\0"


def test_an_oversized_frame_is_thrown_away_and_then_reported() -> None:
    reader = FrameReader()
    reader.feed(header(MAX_DATA + 1))
    for _ in range(64):
        reader.feed(bytes(65536))
        assert reader.next() is None
        assert reader.unconsumed == b""
        assert reader.discarding
    reader.feed(b"\0" + WIRE)
    assert take(reader) == [OversizedFrame(7, MAX_DATA + 1), *FRAMES]
    assert not reader.discarding


def test_the_largest_length_costs_no_memory() -> None:
    reader = FrameReader()
    reader.feed(header(0xFFFFFFFF) + bytes(1000))
    assert reader.next() is None
    assert reader.unconsumed == b""
