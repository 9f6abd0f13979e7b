"""Write a shim for a WebAssembly runtime of your own: all that an engine needs of shimd, in one place.

One class with the methods of :class:`Engine` and an entry point in the group ``shimd.engines`` make
``containerd-shim-NAME-v1``, with pods, cgroups, streams, exec, events, module cache, metrics and status.
``docs/shims.md`` is the tutorial, ``contrib/engine-template`` a project to copy, ``pytest --shimd-engine=NAME`` the
conformance suite. shimd's own engines use nothing else.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from shimd.component.results import Case, Err, Ok
from shimd.component.streams import Future, Stream
from shimd.engine import (
    EXIT_ENGINE,
    EXIT_TRAP,
    BrokenArtifact,
    ChoosesEngine,
    CompilesForFamily,
    Content,
    Engine,
    EngineError,
    Foresees,
    GuestTrap,
    HandlesSignals,
    Image,
    InvalidModule,
    InvalidSetting,
    Invocation,
    Layer,
    LoadsCompiler,
    LoadsInside,
    MissingRuntime,
    OfFamily,
    OtherEngine,
    Packed,
    PacksApplications,
    Preopen,
    RunsApplications,
    RunsArtifacts,
    RunsWithoutPython,
    TakesLayers,
    TakesSockets,
    UnsupportedFeature,
)
from shimd.formats.outline import Outline
from shimd.linux.packed import Packable, pack

if TYPE_CHECKING:
    from shimd.engines.native_components import NativeComponents

#: Where ``engine.h`` is, which says what a part in C (``RunsWithoutPython``) looks like.
INCLUDE = Path(__file__).with_name("engines")

__all__ = [
    "EXIT_ENGINE",
    "EXIT_TRAP",
    "INCLUDE",
    "BrokenArtifact",
    "Case",
    "ChoosesEngine",
    "CompilesForFamily",
    "Content",
    "Engine",
    "EngineError",
    "Err",
    "Foresees",
    "Future",
    "GuestTrap",
    "HandlesSignals",
    "Image",
    "InvalidModule",
    "InvalidSetting",
    "Invocation",
    "Layer",
    "LoadsCompiler",
    "LoadsInside",
    "MissingRuntime",
    "NativeComponents",
    "OfFamily",
    "Ok",
    "OtherEngine",
    "Outline",
    "Packable",
    "Packed",
    "PacksApplications",
    "Preopen",
    "RunsApplications",
    "RunsArtifacts",
    "RunsWithoutPython",
    "Stream",
    "TakesLayers",
    "TakesSockets",
    "UnsupportedFeature",
    "launch",
    "pack",
]


def __getattr__(name: str) -> Any:
    """Load what only some engines are made of, and what that needs, for those."""
    if name != "NativeComponents":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from shimd.engines.native_components import NativeComponents

    return NativeComponents


def launch() -> NoReturn:
    """Run the launcher, as ``[project.scripts]`` has it: ``containerd-shim-NAME-v1 = "shimd.shim:launch"``.

    It becomes the launcher that shimd has installed beside it. ``shimd install`` links that one directly, which saves
    the start of an interpreter a time.
    """
    program = Path(sys.argv[0])
    launcher = program.resolve().with_name("shimd-launcher")
    if not os.access(launcher, os.X_OK):
        launcher = Path(sys.executable).with_name("shimd-launcher")
    try:
        os.execv(launcher, ["shimd-launcher", program.name, *sys.argv[1:]])
    except OSError as error:
        sys.exit(f"{program.name}: {launcher}: {error.strerror}")
