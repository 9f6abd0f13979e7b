"""Installations of shimd side by side: each with an interpreter, a package and programs of its own."""

import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import shimd
from tests.e2e.containerd import LAUNCHERS, REPOSITORY, SYSTEM, Containerd, Result, Version

#: What is installed beside ``shimd``.
_PROGRAMS = ("containerd-shim-*-v[0-9]", "shimd-launcher", "shimd-keeper", "shimd-pause")


@dataclass(frozen=True)
class Tree:
    """One of them."""

    directory: Path

    @property
    def programs(self) -> Path:
        return self.directory / "bin"

    @property
    def package(self) -> Path:
        (found,) = self.directory.glob("lib/python*/site-packages/shimd")
        return found

    def link(self, directory: Path) -> None:
        """As ``shimd install`` does."""
        directory.mkdir(exist_ok=True)
        for program in (*self.programs.glob("containerd-shim-*"), self.programs / "shimd"):
            (directory / program.name).symlink_to(program)

    def change(self, version: str) -> None:
        """Make it another release, with other programs in C."""
        text = (self.package / "__init__.py").read_text()
        assert f'"{shimd.__version__}"' in text
        (self.package / "__init__.py").write_text(text.replace(f'"{shimd.__version__}"', f'"{version}"'))
        for program in (self.programs / "shimd-keeper", self.package / "zygote" / "_zygote"):
            if program.exists():
                new = program.with_name(f".{program.name}")
                shutil.copy(program, new)
                with open(new, "ab") as file:
                    file.write(version.encode())
                new.rename(program)  # not in place: it runs


def tree(directory: Path) -> Tree:
    """The same as is installed for the tests, but for what it needs, which is theirs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    (packages,) = directory.glob("lib/python*/site-packages")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.copytree(Path(shimd.__file__).parent, packages / "shimd")
    programs = directory / "bin"
    for pattern in _PROGRAMS:
        for program in (one for one in LAUNCHERS.glob(pattern) if not one.is_symlink()):  # those are of tests
            shutil.copy(program, programs, follow_symlinks=True)
    shutil.copytree(REPOSITORY / "systemd", directory / "lib/systemd/system")
    script = programs / "shimd"
    script.write_text(f"#!{programs}/python\nimport sys\nfrom shimd.cli.main import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return Tree(directory)


class Linked(Containerd):
    """A containerd whose launchers are links to one of them."""

    def __init__(self, version: Version, directory: Path) -> None:
        super().__init__(version, directory)
        self.env["PATH"] = f"{directory}/bin:{version.programs}:{SYSTEM}"
        self.env["SHIMD_KEEP_EXITS"] = "5"  # of apps that ended with a daemon that had no keeper: nobody asks for them

    @property
    def links(self) -> Path:
        return self.directory / "bin"

    def shimd(self, one: Tree, *arguments: object, check: bool = True) -> Result:
        command = [str(one.programs / "shimd"), *map(str, arguments)]
        env = {**self.env, "CONTAINERD_ADDRESS": str(self.address)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        result = Result(command, done.returncode, done.stdout, done.stderr)
        assert not check or result.code == 0, (result, self.daemon_log()[-4000:])
        return result
