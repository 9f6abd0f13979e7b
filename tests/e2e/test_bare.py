"""``make demo`` as a new user's first command: on bare machines, wherever the clone is; who may not is told why."""

import re
from collections.abc import Iterator

import pytest

from tests.e2e.bare import SUITES, TREES, Machine, machine_of

#: After the command itself: what still runs, and which cgroups are left.
_LEFT = """
"$@"; code=$?
cat /proc/[0-9]*/comm | grep -vxE 'sh|cat|grep'
find /sys/fs/cgroup -maxdepth 2 -name 'shimd-demo*'
exit $code
"""
#: Those of the Makefile's targets that need root for more than packages.
_ROOTS = ("demo", "setup", "test", "test-kubernetes", "bench")
_ALICE = "setpriv --reuid=1000 --regid=1000 --clear-groups"


@pytest.fixture(scope="module")
def bookworm() -> Iterator[Machine]:
    """Bare still, but for a clone that anyone may read."""
    with machine_of("bookworm") as machine:
        machine.clone("/srv/shimd")
        yield machine


@pytest.fixture(scope="module", params=SUITES)
def used(request: pytest.FixtureRequest) -> Iterator[tuple[Machine, str]]:
    """One on which ``make demo`` has been said in a clone in root's home; and what that printed."""
    with machine_of(request.param) as machine:
        machine.clone("/root/shimd")
        yield machine, demo(machine, "/root/shimd")


def demo(machine: Machine, place: str) -> str:
    """What ``make demo`` prints, and after it what it leaves behind."""
    return machine.must(f'cd "$1" && set -- make demo; {_LEFT}', place)


def check(printed: str) -> None:
    before, _, after = printed.partition("All as expected.\n")
    assert before.count("\nHello from WebAssembly under containerd!\n→ exit code 7\n") == 2, printed
    assert "\nHello from a native program!\n→ exit code 0\n" in before
    assert re.search(r"^● shimd \d", before, re.M) and "/tasks/exit" in before
    assert not after


def test_demo_in_roots_home(used: tuple[Machine, str]) -> None:
    check(used[1])


def test_bare_trees_stay_bare(used: tuple[Machine, str]) -> None:
    assert all(not (TREES / suite / "usr/bin/python3").exists() for suite in SUITES)


@pytest.mark.parametrize("used", ["bookworm"], indirect=True)
@pytest.mark.parametrize(
    ("prepare", "place"),
    [
        pytest.param('mv "$0" /tmp/shimd; ln -s /tmp/shimd /srv/link', "/srv/link", id="below tmp, by a link"),
        pytest.param(
            'mkdir -m 700 "/home/a user"; mv "$0" "/home/a user/shimd"; chown -R 1000:1000 "/home/a user"',
            "/home/a user/shimd",
            id="in another user's home, with a space",
        ),
    ],
)
def test_demo_wherever_it_was_moved(used: tuple[Machine, str], prepare: str, place: str) -> None:
    """The whole clone with its .venv, which remembers where it was."""
    machine, _ = used
    machine.must(f"cp -a /root/shimd /root/moved; sh -ec '{prepare}' /root/moved")
    check(demo(machine, place))


def sentence(machine: Machine, script: str) -> str:
    """The one that a failing command prints beside make's own."""
    done = machine.run(f"cd /srv/shimd; {script}")
    assert done.returncode != 0
    lines = [line for line in done.stdout.splitlines() if not line.startswith("make: *** ")]
    assert len(lines) == 1, done.stdout
    return lines[0]


@pytest.mark.parametrize("target", _ROOTS)
def test_another_user_is_told_at_once(bookworm: Machine, target: str) -> None:
    assert "needs root" in sentence(bookworm, f"{_ALICE} make {target}")


def test_another_user_may_do_what_needs_packages_only(bookworm: Machine) -> None:
    assert sentence(bookworm, f"{_ALICE} make lint") == "tools/setup: needs root to install: python3 python3-venv"


@pytest.mark.parametrize("used", ["bookworm"], indirect=True)
def test_another_user_in_roots_clone(used: tuple[Machine, str]) -> None:
    """Python and venv are there, and so nothing is to be installed by root."""
    machine, _ = used
    machine.clone("/srv/shimd")
    assert sentence(machine, f"{_ALICE} make lint").endswith("may not write to /srv/shimd/.venv: run this as its owner")


def test_root_without_namespaces(bookworm: Machine) -> None:
    assert "--privileged" in sentence(bookworm, "setpriv --bounding-set=-sys_admin make demo")


def test_without_cgroups(bookworm: Machine) -> None:
    assert "no cgroups are mounted" in sentence(bookworm, "umount -R /sys && make demo")


def test_without_a_way_to_packages(bookworm: Machine) -> None:
    """apt's own words come before ours."""
    done = bookworm.run(
        "cd /srv/shimd; mv /etc/apt/sources.list /etc/apt/off; make demo; mv /etc/apt/off /etc/apt/sources.list"
    )
    assert "\ntools/setup: apt-get could not install all of: python3 python3-venv\n" in done.stdout


def test_a_rust_that_is_too_old() -> None:
    """Debian 12 has a newer one in its security updates, which debootstrap does not make a source."""
    with machine_of("bookworm") as machine:
        machine.clone("/root/shimd")
        done = machine.run("cd shimd; make wasmtime-native; dpkg-query -W rustc-web")
    words = r"^tools/setup: wasmtime-native .*: apt's lists have 1\.[\d.]+ rustc-web; .* bookworm-security"
    assert re.search(words, done.stdout, re.M) and "no packages found" in done.stdout, done.stdout
