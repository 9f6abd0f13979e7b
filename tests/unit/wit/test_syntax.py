"""Interfaces in text."""

import pytest

from shimd.apps.slight.world import handler, init, interface
from shimd.wit.resolve import functions
from shimd.wit.syntax import SyntaxFault, parse

TEXTS = {
    "shared": "// a comment\ntype name = string\n/* another\n */ record pair { first: name, second: u8 }",
    "uses": "use { pair } from shared\nenum colour { red, green }\ngive: func(p: pair, c: colour) -> option<pair>",
    "broken": "give: func(a: string)\n  -> <",
    "wrong-name": "use { nobody } from shared",
    "unfinished": "resource door {",
    "undefined": "give: func() -> nothing-of-the-kind",
    "many": "give: func(" + ", ".join(f"p{index}: string" for index in range(9)) + ")",
    "arguments": "give: func() -> list<u8, u8>",
    "nothing": "give: func() -> list<unit>",
}


def load(name: str) -> str:
    return TEXTS[name]


def test_types_of_another_interface() -> None:
    [give] = functions(parse("uses", load))
    assert (give.symbol, give.flat_params, give.indirect) == ("give", ["i32", "i32", "i32", "i32"], True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", r"broken\.wit, line 2: a name was expected, not '<'"),
        ("wrong-name", r"wrong-name\.wit, line 1: shared has no type nobody"),
        ("unfinished", r"unfinished\.wit, line 1: a name was expected, not ''"),
    ],
)
def test_text_that_is_wrong(name: str, words: str) -> None:
    with pytest.raises(SyntaxFault, match=words):
        parse(name, load)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("undefined", "the type nothing-of-the-kind is not defined"),
        ("many", "give takes more than 16 numbers"),
        ("arguments", "list does not take 2 types"),
        ("nothing", "list does not take 1 types"),
    ],
)
def test_types_that_are_wrong(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        functions(parse(name, load))


def test_the_signatures_of_slight() -> None:
    """As modules that were built with wit-bindgen 0.2 import and export them."""
    keyvalue = {one.symbol: one.flat_params for one in functions(interface("keyvalue"))}
    assert keyvalue == {
        "keyvalue::open": ["i32"] * 2,
        "keyvalue::get": ["i32"] * 3,
        "keyvalue::set": ["i32"] * 5,
        "keyvalue::keys": ["i32"],
        "keyvalue::delete": ["i32"] * 3,
    }
    assert all(one.indirect for one in functions(interface("keyvalue")))
    assert (handler().flat_params, handler().indirect) == (["i32"] * 10, True)
    assert (init().flat_params, init().indirect) == ([], True)
    prepare = functions(interface("sql"))[-1]
    assert (prepare.symbol, prepare.flat_params, prepare.result.flat) == ("statement::prepare", ["i32"] * 4, ("i32",))
