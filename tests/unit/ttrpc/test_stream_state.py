"""The tables, and the claim that both ends of a connection go through the same states."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shimd.ttrpc._state import CLIENT, SERVER, Move, State, Table
from shimd.ttrpc.client_connection import ClientConnection
from shimd.ttrpc.envelope import Request
from shimd.ttrpc.errors import LocalProtocolError
from shimd.ttrpc.events import NEED_DATA
from shimd.ttrpc.server_connection import ServerConnection

#: The three diagrams of ttrpc's PROTOCOL.md, and what else it allows in words: who moves, how, into which state.
DIAGRAMS = {
    "unary": [(CLIENT, Move.REQUEST, State.UNARY), (SERVER, Move.RESPONSE, State.DONE)],
    "client stream": [
        (CLIENT, Move.REQUEST_OPEN, State.OPEN),
        (CLIENT, Move.DATA, State.OPEN),
        (CLIENT, Move.LAST, State.HALF_CLOSED),
        (SERVER, Move.RESPONSE, State.DONE),
    ],
    "server stream": [
        (CLIENT, Move.REQUEST_CLOSED, State.HALF_CLOSED),
        (SERVER, Move.DATA, State.HALF_CLOSED),
        (SERVER, Move.LAST, State.DONE),
    ],
    "both": [
        (CLIENT, Move.REQUEST_OPEN, State.OPEN),
        (CLIENT, Move.DATA, State.OPEN),
        (SERVER, Move.DATA, State.OPEN),
        (CLIENT, Move.LAST, State.HALF_CLOSED),
        (SERVER, Move.DATA, State.HALF_CLOSED),
        (SERVER, Move.LAST, State.DONE),
    ],
}


@pytest.mark.parametrize("name", DIAGRAMS)
def test_the_diagrams_of_the_specification(name: str) -> None:
    state = State.IDLE
    for table, move, expected in DIAGRAMS[name]:
        state = table[state][move]
        assert state is expected


@pytest.mark.parametrize(("table", "state"), list(product((CLIENT, SERVER), State)))
def test_every_state_stands_in_both_tables(table: Table, state: State) -> None:
    assert state in table
    assert State.IDLE not in table[state].values()


def test_only_the_client_begins_only_the_server_ends_and_nothing_follows() -> None:
    assert not SERVER[State.IDLE]
    assert not CLIENT[State.DONE]
    assert not SERVER[State.DONE]
    assert all(State.DONE not in moves.values() for moves in CLIENT.values())


class Ends:
    """A client and a server connection whose bytes reach each other at once."""

    def __init__(self) -> None:
        self.client, self.server = ClientConnection(), ServerConnection()

    def begin(self, move: Move) -> int:
        unary, closed = move is Move.REQUEST, move is not Move.REQUEST_OPEN
        stream_id, data = self.client.send_request(Request("s", "m"), unary=unary, closed=closed)
        self.deliver(self.server, data)
        return stream_id

    def move(self, side: str, stream_id: int, move: Move) -> None:
        connection, peer = (self.client, self.server) if side == "client" else (self.server, self.client)
        if move is Move.RESPONSE:
            data = self.server.send_response(stream_id, b"x")
        elif move is Move.DATA:
            data = connection.send_data(stream_id, b"x")
        else:
            data = connection.send_end(stream_id)
        self.deliver(peer, data)

    def deliver(self, peer: ClientConnection | ServerConnection, data: bytes) -> None:
        peer.receive_data(data)
        event = peer.next_event()
        assert event is not NEED_DATA
        assert type(event).__name__ in ("RequestReceived", "DataReceived", "ResponseReceived")
        assert peer.next_event() is NEED_DATA


REQUESTS = st.sampled_from([Move.REQUEST, Move.REQUEST_OPEN, Move.REQUEST_CLOSED])
MOVES = st.tuples(st.sampled_from(["client", "server"]), st.sampled_from([Move.DATA, Move.LAST, Move.RESPONSE]))


@given(REQUESTS, st.lists(MOVES, max_size=8))
def test_both_ends_agree(request: Move, moves: list[tuple[str, Move]]) -> None:
    """Whatever legal moves are made, the peer takes them; an illegal one is refused locally and changes nothing."""
    ends = Ends()
    stream_id = ends.begin(request)
    state = CLIENT[State.IDLE][request]
    for side, move in moves:
        if side == "client" and move is Move.RESPONSE:
            continue
        legal = (CLIENT if side == "client" else SERVER)[state]
        if move in legal:
            ends.move(side, stream_id, move)
            state = legal[move]
        else:
            with pytest.raises(LocalProtocolError):
                ends.move(side, stream_id, move)
        assert ends.client.is_open(stream_id) == ends.server.is_open(stream_id) == (state is not State.DONE)
        assert ends.client.may_send(stream_id) == (Move.DATA in CLIENT[state])
        assert ends.server.may_send(stream_id) == (Move.DATA in SERVER[state])
