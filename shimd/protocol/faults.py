"""What went wrong in an engine or around it, as the supervisor is told: a status code and one sentence."""

from shimd.engine import BrokenArtifact, EngineError, InvalidModule, InvalidSetting, UnsupportedFeature
from shimd.errors import Code, DataLoss, Internal, InvalidArgument, ShimdError, Unimplemented, from_code, from_os
from shimd.protocol.messages import Message


def describe(error: Exception) -> Message:
    """An error as (code, one sentence)."""
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
            return {"code": int(Internal.code), "message": f"{type(error).__name__}: {error}"}
    return {"code": int(code), "message": str(error)}


def from_engine(error: EngineError) -> ShimdError:
    """An engine's error as one of ours."""
    described = describe(error)
    return from_code(described["code"], described["message"])
