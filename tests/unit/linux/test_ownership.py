"""Directories that are one user's alone, whoever that is."""

import os
import re
from pathlib import Path

import pytest

from shimd.linux.ownership import not_alone

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
SOMEBODY = 12345


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (made := tmp_path / "above/own").mkdir(parents=True)
    return made


def refused(directory: Path, why: str) -> None:
    said = not_alone(directory)
    assert re.fullmatch(rf"{directory} is not (root|user \d+)'s alone: {why}", said), said


def test_its_users(place: Path) -> None:
    assert not not_alone(place)


def test_it_is_not_there(place: Path) -> None:
    assert not not_alone(place / "more/and/more")


def test_relative(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert not not_alone(Path("."))
    place.chmod(0o777)
    assert not_alone(Path("."))


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_others_may_write_to_it(place: Path, mode: int) -> None:
    place.chmod(mode)
    refused(place, rf"others may write to it \(chmod go-w {place}\)")


def test_others_may_read_it(place: Path) -> None:
    place.chmod(0o755)
    assert not not_alone(place)


@pytest.mark.parametrize("mode", [0o770, 0o757])
def test_others_may_put_another_in_its_place(place: Path, mode: int) -> None:
    place.parent.chmod(mode)
    refused(place, rf"others may write to {place.parent} \(chmod go-w {place.parent}\)")
    place.parent.chmod(mode | 0o1000)  # as in /tmp, only owners may
    assert not not_alone(place)


@root_only
def test_it_is_anothers(place: Path) -> None:
    os.chown(place, SOMEBODY, 0)
    refused(place, f"{place} belongs to user {SOMEBODY}")


@root_only
def test_it_is_in_anothers(place: Path) -> None:
    os.chown(place.parent, SOMEBODY, 0)
    refused(place, f"{place.parent} belongs to user {SOMEBODY}")


@pytest.mark.parametrize("relative", [False, True])
def test_a_link_counts_with_all_that_it_leads_through(place: Path, tmp_path: Path, relative: bool) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links/link"
    link.symlink_to("../above/own" if relative else place)
    assert not not_alone(link)
    place.parent.chmod(0o777)
    refused(link, r"others may write to \S+above \(chmod go-w \S+above\)")
    place.parent.chmod(0o755)
    link.parent.chmod(0o777)
    refused(link, rf"others may write to {link.parent} \(chmod go-w {link.parent}\)")


@root_only
def test_a_link_of_anothers(place: Path, tmp_path: Path) -> None:
    (link := tmp_path / "link").symlink_to(place)
    os.lchown(link, SOMEBODY, 0)
    refused(link, f"{link} belongs to user {SOMEBODY}")


def test_a_circle(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert not_alone(tmp_path / "one") == f"{tmp_path / 'one'} leads nowhere: it is a link in a circle"
