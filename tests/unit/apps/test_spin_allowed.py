"""``allowed_outbound_hosts``: what is let out, and entries that are none."""

import pytest

from shimd.apps.spin.allowed import AllowedHosts, is_left_out, of_http_hosts
from shimd.apps.spin.fields import ManifestTable
from shimd.component.results import Err
from shimd.engine import InvalidSetting

WHERE = "/spin.toml: component.c.allowed_outbound_hosts"


@pytest.mark.parametrize(
    ("entry", "scheme", "authority"),
    [
        ("https://example.com", "https", "example.com"),
        ("https://example.com", "https", "EXAMPLE.com:443"),
        ("https://example.com/", "https", "example.com"),
        (" https://example.com: ", "https", "example.com"),
        ("http://example.com:8080", "http", "example.com:8080"),
        ("http://example.com:8080/", "http", "example.com:8080"),
        ("http://example.com:8000..8100", "http", "example.com:8000"),
        ("http://example.com:8000..8100", "http", "example.com:8099"),
        ("https://*.example.com", "https", "a.b.example.com"),
        ("https://*", "https", "anything"),
        ("*://*:*", "http", "anything:1"),
        ("*://example.com:*", "https", "example.com:1"),
        ("http://127.0.0.1:*", "http", "127.0.0.1:9"),
        ("http://127.0.0.1/8:*", "http", "127.1.2.3:9"),
        ("*://10.0.0.0/24:63551", "http", "10.0.0.255:63551"),
        ("http://[::1]:80", "http", "[::1]:80"),
        ("http://fd00::/8", "http", "[fd12::3]"),
        ("http://fd00::/8:8080", "http", "[fd12::3]:8080"),
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
        ("https://*.example.com", "https", "evilexample.com"),
        ("http://example.com:8000..8100", "http", "example.com:8100"),
        ("http://example.com:80", "http", "user@example.com:80"),
        ("http://127.0.0.1/8:*", "http", "128.0.0.1:9"),
        ("http://127.0.0.1/8:*", "http", "localhost:9"),
        ("http://fd00::/8", "http", "[fe80::1]"),
        ("http://127.0.0.1:*", "http", "127.1:9"),
        ("http://self", "http", "self"),
        ("http://self", "http", "self.alt"),
        ("*://*:*", "http", "self.alt"),
        ("http://*.spin.internal", "http", "spin.internal"),
    ],
)
def test_denied(entry: str, scheme: str, authority: str) -> None:
    with pytest.raises(Err):
        AllowedHosts([entry], WHERE)(scheme, authority)


def test_nothing_is_allowed_unless_it_is_said() -> None:
    with pytest.raises(Err):
        AllowedHosts([], WHERE)("https", "example.com")


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "example.com",
        "https://",
        "https://a.com/path",
        "https://a.com:80/path",
        "ftp://a.com",
        "http://a.com:x",
        "http://a.com:65536",
        "http://a.com:9..8",
        "http://a.com:1..2..3",
        "http://{a.com,b.com}",
        "http://a.*.com",
        "http://*a.com",
        "http://10.0.0.0/33",
        "{http,https}://a.com",
        "insecure:allow-all",
    ],
)
def test_entries_that_are_none(entry: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        AllowedHosts([entry], WHERE)
    assert str(caught.value).startswith(f'{WHERE} has "{entry}", wh')


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


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("http://self", True),
        ("https://self.alt", True),
        ("*://*:*", True),
        ("redis://self", False),
        ("http://a", False),
    ],
)
def test_requests_to_the_application_itself(entry: str, expected: bool) -> None:
    assert AllowedHosts([entry], WHERE).allows_self() == expected


def test_components_that_are_named() -> None:
    entries = ["http://one.spin.internal", "http://*.spin.internal", "*://*:*", "http://a"]
    assert AllowedHosts(entries, WHERE).chained() == ["one"]


@pytest.mark.parametrize(
    ("entry", "resolved", "expected"),
    [("{{ a }}", "", True), ("https://{{ a }}", "https://", True), ("https://", "https://", False), ("", "", False)],
)
def test_a_variable_that_is_empty_allows_nothing(entry: str, resolved: str, expected: bool) -> None:
    assert is_left_out(entry, resolved) == expected


def http_hosts(*hosts: str) -> list[str]:
    return list(of_http_hosts(ManifestTable("/spin.toml", "component.c", {"allowed_http_hosts": list(hosts)})))


def test_the_older_list_of_hosts() -> None:
    assert http_hosts("a.com", "b.com:81", "https://c.com/", "self") == [
        "http://a.com",
        "https://a.com",
        "http://b.com:81",
        "https://b.com:81",
        "http://c.com",
        "https://c.com",
        "http://self",
    ]
    assert http_hosts("a.com", "insecure:allow-all") == ["http://*:*", "https://*:*", "http://self"]
    assert http_hosts() == []


@pytest.mark.parametrize("host", ["", "redis://a", "a.com/path", "*", "http://"])
def test_older_entries_that_are_none(host: str) -> None:
    with pytest.raises(InvalidSetting, match=r"component\.c\.allowed_http_hosts has"):
        http_hosts(host)
