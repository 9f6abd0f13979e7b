"""What pyproject.toml cannot say: cargo builds the library, and the wheel is for any Python 3 of one platform."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildLibrary(build_py):
    def run(self) -> None:
        super().run()
        subprocess.run(["cargo", "build", "--release", "--locked"], cwd=HERE, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target"))
        shutil.copy2(target / "release" / "libshimd_wasmer.so", Path(self.build_lib) / "shimd_wasmer_native")


class Wheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", sysconfig.get_platform().replace("-", "_").replace(".", "_")


class WithLibrary(Distribution):
    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": BuildLibrary, "bdist_wheel": Wheel}, distclass=WithLibrary)
