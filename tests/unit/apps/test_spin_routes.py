"""Which route a path takes, and what a component is told of it."""

import pytest

from shimd.apps.spin.routes import SpinRoute, find, headers

ROUTES = [
    SpinRoute("/", "root"),
    SpinRoute("/...", "rest"),
    SpinRoute("/users/:id", "user"),
    SpinRoute("/users/me", "me"),
    SpinRoute("/users/:id/posts/...", "posts"),
    SpinRoute("/static/...", "static"),
    SpinRoute(None, "private"),
]


@pytest.mark.parametrize(
    ("path", "component", "info"),
    [
        ("/", "root", ""),
        ("/x", "rest", "/x"),
        ("/users/7", "user", ""),
        ("/users/me", "me", ""),
        ("/users/7/posts", "posts", ""),
        ("/users/7/posts/", "posts", "/"),
        ("/users/7/posts/1/2", "posts", "/1/2"),
        ("/users/7/other", "rest", "/users/7/other"),
        ("/static", "static", ""),
        ("/static/a/b.css", "static", "/a/b.css"),
        ("/statics", "rest", "/statics"),
    ],
)
def test_the_most_specific_route_wins(path: str, component: str, info: str) -> None:
    match = find(ROUTES, path)
    assert match is not None
    assert (match.route.component, match.path_info) == (component, info)


def test_no_route() -> None:
    assert find([SpinRoute("/a", "a"), SpinRoute(None, "private")], "/b") is None


def test_named_segments_are_told() -> None:
    match = find(ROUTES, "/users/7/posts/1")
    assert match is not None
    told = dict(headers(match, "http://x/users/7/posts/1", "1.2.3.4:5"))
    assert told[b"spin-path-match-id"] == b"7"
    assert told[b"spin-matched-route"] == b"/users/:id/posts/..."
    assert told[b"spin-component-route"] == b"/users/:id/posts"
