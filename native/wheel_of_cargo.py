"""A wheel around a C library that cargo builds, for any Python 3 of one platform: what pyproject.toml cannot say."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py


class Wheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", sysconfig.get_platform().replace("-", "_").replace(".", "_")


class WithLibrary(Distribution):
    def has_ext_modules(self) -> bool:
        return True


def make(project: Path, package: str, library: str) -> None:
    """:param library: the crate's, which goes into ``package``"""

    class BuildLibrary(build_py):
        def run(self) -> None:
            super().run()
            subprocess.run(["cargo", "build", "--release", "--locked"], cwd=project, check=True)
            target = Path(os.environ.get("CARGO_TARGET_DIR", project / "target"))
            shutil.copy2(target / "release" / library, Path(self.build_lib) / package)

    setup(cmdclass={"build_py": BuildLibrary, "bdist_wheel": Wheel}, distclass=WithLibrary)
