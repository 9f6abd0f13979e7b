"""What went wrong in an engine or around it, as the supervisor is told: a status code and one sentence."""

from shimd.engine import BrokenArtifact, EngineError, InvalidModule, InvalidSetting, UnsupportedFeature
from shimd.errors import Code, DataLoss, Internal, InvalidArgument, ShimdError, Unimplemented, from_code, from_os
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
    return Error(int(code), str(error))


def from_engine(error: EngineError) -> ShimdError:
    """An engine's error as one of ours."""
    described = describe(error)
    return from_code(described.code, described.message)
