"""Versions of WASI's interfaces: a component that was built for one of WASI 0.2's runs on any later one."""

import re

_WASI_02 = re.compile(r"@0\.2\.\d+$")


def unversioned(interface: str) -> str:
    """Returns an interface's name without its version, if that is one of WASI 0.2; any other as it is."""
    return _WASI_02.sub("", interface)
