"""What pyproject.toml cannot say: the launchers are made here, and copied as they are into the scripts directory.

``SHIMD_LAUNCHER=c`` or ``python`` chooses; by default C where a compiler works. The wheel is platform specific then.
"""

import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

# isort: split
from distutils.command.build_scripts import build_scripts  # setuptools' own, once setuptools is imported

sys.path.insert(0, str(Path(__file__).parent))
from shimd.launcher.build import build, default_kind


class BuildLaunchers(build_scripts):
    def run(self) -> None:
        build(Path(self.build_dir), self.distribution.get_version())


class Wheel(bdist_wheel):
    def finalize_options(self) -> None:
        if not self.plat_name and default_kind() == "c":
            self.plat_name = sysconfig.get_platform()
        super().finalize_options()

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]  # what is in C does not know Python


class Libraries(build_ext):
    """Plain shared libraries, for ctypes."""

    def get_ext_filename(self, name: str) -> str:
        return name.replace(".", "/") + ".so"


def library(name: str, source: str) -> Extension:
    """One that shimd does without if it cannot be built."""
    flags = ["-std=gnu99", "-O2", "-Wall", "-Wextra"]
    return Extension(name, [source], depends=["shimd/engines/engine.h"], extra_compile_args=flags, optional=True)


LIBRARIES = [
    library("shimd.worker._zygote", "shimd/worker/zygote.c"),
    library("shimd.engines._wasmtime", "shimd/engines/wasmtime.c"),
]

setup(
    cmdclass={"build_scripts": BuildLaunchers, "bdist_wheel": Wheel, "build_ext": Libraries},
    ext_modules=LIBRARIES if default_kind() == "c" else [],
    scripts=["shimd/launcher/launcher.py"],  # without any, build_scripts does not run
    data_files=[("lib/systemd/system", ["systemd/shimd.service", "systemd/shimd.socket"])],
)
