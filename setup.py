"""What pyproject.toml cannot say: the launchers are made here, and copied as they are into the scripts directory.

``SHIMD_LAUNCHER=c`` or ``python`` chooses; by default C where a compiler works. The wheel is platform specific then.
"""

import os
import shlex
import sys
import sysconfig
from pathlib import Path

# First of all that is not every Python's, since it says which Python is needed.
sys.path.insert(0, str(Path(__file__).parent))
from shimd.launcher.build import HARDENED, LINKED, build, default_kind

# isort: split
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

# isort: split
from distutils.command.build_scripts import build_scripts  # setuptools' own, once setuptools is imported


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


class InC(build_ext):
    """Plain shared libraries, and one program: none of them knows Python. shimd does without what cannot be built."""

    def get_ext_filename(self, name: str) -> str:
        return name.replace(".", "/") + ("" if name.rpartition(".")[2] == "_zygote" else ".so")

    def build_extension(self, ext: Extension) -> None:
        if ext.name == ZYGOTE:
            self._link_program(Path(self.get_ext_fullpath(ext.name)), ext)
        else:
            super().build_extension(ext)

    def _link_program(self, path: Path, ext: Extension) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = [*ext.extra_compile_args, "-fPIE"]
        objects = self.compiler.compile(ext.sources, self.build_temp, extra_postargs=flags)
        flags = ["-pie", *ext.extra_link_args]
        self.compiler.link_executable(objects, path.name, str(path.parent), libraries=["dl"], extra_postargs=flags)


def in_c(name: str, *sources: str) -> Extension:
    flags = ["-std=gnu99", "-O2", "-Wall", "-Wextra", *HARDENED, *shlex.split(os.environ.get("CFLAGS", ""))]
    headers = [
        "shimd/engines/constants.h",
        "shimd/engines/contained.h",
        "shimd/engines/engine.h",
        "shimd/zygote/protocol.h",
    ]
    return Extension(
        name, [*sources], depends=headers, extra_compile_args=flags, extra_link_args=[*LINKED], optional=True
    )


ZYGOTE = "shimd.zygote._zygote"
EXTENSIONS = [
    in_c(ZYGOTE, "shimd/zygote/zygote.c"),
    in_c("shimd.engines._wasmtime", "shimd/engines/wasmtime.c", "shimd/engines/contained.c"),
    in_c("shimd.engines.wasmer._native", "shimd/engines/wasmer/native.c"),
]

setup(
    cmdclass={"build_scripts": BuildLaunchers, "bdist_wheel": Wheel, "build_ext": InC},
    ext_modules=EXTENSIONS if default_kind() == "c" else [],
    scripts=["shimd/launcher/launcher.py"],  # without any, build_scripts does not run
    data_files=[("lib/systemd/system", ["systemd/shimd.service", "systemd/shimd.socket"])],
)
