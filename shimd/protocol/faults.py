"""Errors in an engine or around it, as the supervisor is told of them: a status code and one sentence."""

from shimd.engine import BrokenArtifact, EngineError, InvalidModule, InvalidSetting, UnsupportedFeature
from shimd.errors import Code, DataLoss, Internal, InvalidArgument, ShimdError, Unimplemented, from_code, from_os
from shimd.launcher.names import runtime_type
from shimd.protocol.worker import Error


def describe(error: Exception) -> Error:
    """An error as the message that tells of it."""
    match error:
        case ShimdError():
            code: Code = error.code
        case InvalidModule() | InvalidSetting():
            code = InvalidArgument.code
        case BrokenArtifact():
            code = DataLoss.code
        case UnsupportedFeature():
            code = Unimplemented.code
        case OSError():
            return describe(from_os(error))
        case EngineError():
            code = Internal.code
        case _:
            return Error(int(Internal.code), f"{type(error).__name__}: {error}")
    return Error(int(code), sentence(error))


def sentence(error: Exception) -> str:
    """Returns an error's message; where it ends with an engine to be used instead, with the name of its runtime."""
    use = error.use if isinstance(error, EngineError) else ""
    return f"{error} ({runtime_type(use)})" if use else str(error)


def from_engine(error: EngineError) -> ShimdError:
    """An engine's error as one of ours."""
    described = describe(error)
    return from_code(described.code, described.message)
