"""Names of runtimes and of their shims: containerd makes one of the other. Standard library only, and imports nothing.

(containerd's ``docs/runtime-v2.md``, "Invoking Runtimes".)
"""

#: Versions of the shim's name that containerd is told, if it is not 1: SpinKube's is 2.
VERSIONS = {"spin": (2, 1)}


def shim_names(engine: str) -> list[str]:
    """Returns the names that containerd may look for, the one that ``shimd install`` configures first."""
    return [f"containerd-shim-{engine}-v{version}" for version in VERSIONS.get(engine, (1,))]


def runtime_type(engine: str) -> str:
    """Returns the name of an engine's runtime in containerd's configuration, as ``shimd install`` writes it."""
    return f"io.containerd.{engine}.v{VERSIONS.get(engine, (1,))[0]}"
