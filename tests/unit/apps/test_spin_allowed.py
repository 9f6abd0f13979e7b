"""``allowed_outbound_hosts``: what is let out, and entries that are none."""

import pytest

from shimd.apps.spin.allowed import AllowedHosts
from shimd.component.values import Err
from shimd.engine import InvalidSetting

WHERE = "/spin.toml: component.c.allowed_outbound_hosts"


@pytest.mark.parametrize(
    ("entry", "scheme", "authority"),
    [
        ("https://example.com", "https", "example.com"),
        ("https://example.com", "https", "EXAMPLE.com:443"),
        ("http://example.com:8080", "http", "example.com:8080"),
        ("http://example.com:8000..8100", "http", "example.com:8050"),
        ("https://*.example.com", "https", "a.b.example.com"),
        ("*://*:*", "http", "anything:1"),
        ("http://127.0.0.1:*", "http", "127.0.0.1:9"),
        ("http://[::1]:80", "http", "[::1]:80"),
    ],
)
def test_allowed(entry: str, scheme: str, authority: str) -> None:
    AllowedHosts([entry], WHERE)(scheme, authority)


@pytest.mark.parametrize(
    ("entry", "scheme", "authority"),
    [
        ("https://example.com", "http", "example.com"),
        ("https://example.com", "https", "example.com:444"),
        ("https://example.com", "https", "example.com.evil.test"),
        ("https://example.com", "https", "evilexample.com"),
        ("https://*.example.com", "https", "example.com"),
        ("http://example.com:8000..8100", "http", "example.com:8100"),
        ("http://example.com:80", "http", "user@example.com:80"),
    ],
)
def test_denied(entry: str, scheme: str, authority: str) -> None:
    with pytest.raises(Err):
        AllowedHosts([entry], WHERE)(scheme, authority)


def test_nothing_is_allowed_unless_it_is_said() -> None:
    with pytest.raises(Err):
        AllowedHosts([], WHERE)("https", "example.com")


@pytest.mark.parametrize("entry", ["example.com", "https://", "https://a.com/path", "ftp://a.com", "http://a.com:x"])
def test_entries_that_are_none(entry: str) -> None:
    with pytest.raises(InvalidSetting, match=rf"{WHERE} has \"{entry}\""):
        AllowedHosts([entry], WHERE)


@pytest.mark.parametrize(
    ("scheme", "host", "port", "expected"),
    [("redis", "::1", 6379, True), ("redis", "a", 6379, False), ("rediss", "::1", 6379, False), ("mqtt", "b", 7, True)],
)
def test_other_protocols(scheme: str, host: str, port: int, expected: bool) -> None:
    outbound = AllowedHosts(["redis://[::1]", "mqtt://b:7"], WHERE)
    assert outbound.allows(scheme, host, port) == expected


def test_which_libraries_may_be_needed() -> None:
    assert AllowedHosts(["redis://a"], WHERE).may_ever("redis", "rediss")
    assert AllowedHosts(["*://a:1"], WHERE).may_ever("mysql")
    assert not AllowedHosts(["http://*:*"], WHERE).may_ever("redis", "rediss")
