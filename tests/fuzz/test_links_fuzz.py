"""Root file systems full of links, and paths that go by them: whatever is made, is made inside."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shimd.engines import contained
from shimd.errors import InvalidArgument
from shimd.isolation.tree import Tree
from shimd.wasi.filesystem import leads_out

BOUNDED = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PARTS = st.sampled_from(["a", "b", "c", "d", "..", ".", "", "proc", "secret"])
PATHS = st.builds(
    lambda start, parts: start + "/".join(parts), st.sampled_from(["", "/", "../../"]), st.lists(PARTS, max_size=6)
)
NAMES = st.sampled_from(["a", "b", "c", "d", "a/a", "a/b", "b/a", "proc/a"])
TREES = st.dictionaries(NAMES, st.one_of(st.none(), PATHS.filter(bool)), max_size=6)


def plant(root: Path, tree: dict[str, str | None]) -> None:
    """Links, and directories where there is no target."""
    for name, target in sorted(tree.items()):
        try:
            if target is None:
                (root / name).mkdir(parents=True, exist_ok=True)
            elif not any((root / parent).is_symlink() for parent in Path(name).parents):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).symlink_to(target)
        except OSError:
            continue


@BOUNDED
@given(tree=TREES, path=PATHS, directory=st.booleans())
def test_what_is_made_is_inside(tree: dict[str, str | None], path: str, directory: bool) -> None:
    top = Path(tempfile.mkdtemp())
    try:
        root = top / "x/rootfs"
        (top / "x/secret").mkdir(parents=True)
        root.mkdir()
        plant(root, {name: target for name, target in tree.items() if ".." not in name})
        before = outside(top)
        check_make(Tree(str(root)), path, directory)
        assert outside(top) == before
    finally:
        shutil.rmtree(top)


def outside(top: Path) -> list[str]:
    return sorted(str(path) for path in [*top.iterdir(), *(top / "x").iterdir(), *(top / "x/secret").iterdir()])


def check_make(tree: Tree, path: str, directory: bool) -> None:
    """It is made, at a place that the kernel finds by the path; or it is an error, which it stays."""
    try:
        fd = tree.make(path, directory)
    except OSError as error:
        os.close(tree.fd)
        assert "Errno" in str(error)
        return
    try:
        place = tree.place(fd)
        assert os.path.samestat(os.fstat(fd), os.stat(tree.path + place))
        os.close(tree.reopen(place))  # no link is on it
        with suppress(
            FileNotFoundError, NotADirectoryError
        ):  # by way of what is not there, up again; a file with a slash
            found = tree.open(path)
            assert os.path.samestat(os.fstat(fd), os.fstat(found))
            os.close(found)
    except InvalidArgument as error:
        assert "the root itself" in str(error)
    finally:
        os.close(fd)
        os.close(tree.fd)


@BOUNDED
@given(PATHS)
def test_both_know_what_leads_out(path: str) -> None:
    library = contained.library()
    if library is None:
        pytest.skip("no C compiler was here")
    assert bool(library.shimd_leads_out(path.encode())) == leads_out(path)
