"""What pyproject.toml cannot say: the launchers are made here, and copied as they are into the scripts directory.

``SHIMD_LAUNCHER=c`` or ``python`` chooses; by default C where a compiler works. The wheel is platform specific then.
"""

import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

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


setup(
    cmdclass={"build_scripts": BuildLaunchers, "bdist_wheel": Wheel},
    scripts=["shimd/launcher/launcher.py"],  # without any, build_scripts does not run
    data_files=[("lib/systemd/system", ["systemd/shimd.service", "systemd/shimd.socket"])],
)
