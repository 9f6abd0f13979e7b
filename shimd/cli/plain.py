"""``--json``: messages of the Status service as JSON. Fields are named as in ``status.proto``; all are always there."""

import json
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import betterproto2


def plain(message: betterproto2.Message) -> dict[str, Any]:
    """Convert a message for JSON: times are RFC 3339 in UTC, states are lower-case words, what is unknown is null."""
    fields = message.to_dict(
        output_format=betterproto2.OutputFormat.PYTHON,
        casing=betterproto2.Casing.SNAKE,
        include_default_values=True,
    )
    result: dict[str, Any] = _plain(fields)
    return result


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case Enum():
            return value.name.lower()
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case _:
            return value


def document(value: Any) -> None:
    """Print a whole document, for people and programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def line(value: Any) -> None:
    """Print one line of a stream, now."""
    print(json.dumps(value, ensure_ascii=False), flush=True)
