"""Values of PostgreSQL as the interfaces have them, by asyncpg's Python values."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from shimd.component.results import Case

Plain = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _date(value: date) -> tuple[int, int, int]:
    return value.year, value.month, value.day


def _time(value: time) -> tuple[int, int, int, int]:
    return value.hour, value.minute, value.second, value.microsecond * 1000


def _datetime(value: datetime) -> tuple[int, ...]:
    plain = value.astimezone(UTC) if value.tzinfo else value
    return *_date(plain), *_time(plain.time())


def _texts(values: list[Any]) -> list[str | None]:
    return [str(value) if value is not None else None for value in values]


def _range(convert: Plain) -> Plain:
    def lower(value: Any) -> tuple[Any, Any]:
        return (
            (convert(value.lower), _bound(value.lower_inc)) if value.lower is not None else None,
            (convert(value.upper), _bound(value.upper_inc)) if value.upper is not None else None,
        )

    return lower


def _bound(inclusive: bool) -> str:
    return "inclusive" if inclusive else "exclusive"


def lower(value: tuple[int, int, int]) -> dict[str, int]:
    """Convert an interval, from asyncpg's tuple format (months, days, microseconds)."""
    months, days, micros = value
    return {"micros": micros, "days": days, "months": months}


def encode_interval(value: Mapping[str, int]) -> tuple[int, int, int]:
    return value["months"], value["days"], value["micros"]


#: By PostgreSQL's name of a type: the case, and what its payload is. The first are those of every version.
_BASIC: dict[str, tuple[str, Plain]] = {
    "bool": ("boolean", _same),
    "int2": ("int16", _same),
    "int4": ("int32", _same),
    "int8": ("int64", _same),
    "float4": ("floating32", _same),
    "float8": ("floating64", _same),
    "text": ("str", _same),
    "varchar": ("str", _same),
    "bpchar": ("str", _same),
    "bytea": ("binary", bytes),
}
_MOMENTS: dict[str, tuple[str, Plain]] = {
    "date": ("date", _date),
    "time": ("time", _time),
    "timestamp": ("datetime", _datetime),
    "timestamptz": ("datetime", _datetime),
}
_MORE: dict[str, tuple[str, Plain]] = {
    "uuid": ("uuid", str),
    "jsonb": ("jsonb", str.encode),
    "numeric": ("decimal", str),
    "int4range": ("range-int32", _range(_same)),
    "int8range": ("range-int64", _range(_same)),
    "numrange": ("range-decimal", _range(str)),
    "int4[]": ("array-int32", _same),
    "int8[]": ("array-int64", _same),
    "numeric[]": ("array-decimal", _texts),
    "text[]": ("array-str", _same),
    "varchar[]": ("array-str", _same),
    "bpchar[]": ("array-str", _same),
    "interval": ("interval", _same),
}


@dataclass(frozen=True)
class InterfaceVersion:
    """A version of the interface."""

    types: Mapping[str, tuple[str, Plain]]
    tells_more: bool = False
    """True if unsupported values come as bytes, and errors as records with severity and code (from 4.0.0 on)."""
    columns_are_cases: bool = False

    def column(self, kind: str) -> Any:
        """``db-data-type``."""
        tag = self.types[kind][0] if kind in self.types else "other"
        if not self.columns_are_cases:
            return tag
        return Case(tag, kind if tag == "other" else None)

    def value(self, kind: str, value: Any) -> Case:
        """``db-value``."""
        if value is None:
            return Case("db-null")
        if kind not in self.types:
            return Case("unsupported", str(value).encode() if self.tells_more else None)
        tag, convert = self.types[kind]
        return Case(tag, convert(value))

    def query_error(self, error: Any) -> Any:
        """Returns the payload of ``query-failed``."""
        if not self.tells_more:
            return str(error)
        known = {"severity", "sqlstate", "message", "detail"}
        more = {name: value for name, value in error.as_dict().items() if value and name not in known}
        return Case(
            "db-error",
            {
                "as-text": str(error),
                "severity": error.severity or "",
                "code": error.sqlstate or "",
                "message": error.message or str(error),
                "detail": error.detail,
                "extras": [(name, str(value)) for name, value in more.items()],
            },
        )


V2 = InterfaceVersion(_BASIC)
V3 = InterfaceVersion(_BASIC | _MOMENTS)
V4 = InterfaceVersion(_BASIC | _MOMENTS | _MORE, tells_more=True, columns_are_cases=True)


def parameter(case: Case) -> Any:
    """``parameter-value`` of any version, as asyncpg takes it.

    :raises ValueError: it is none (a date that does not exist)
    """
    convert = _PARAMETERS.get(case.tag)
    return convert(case.payload) if convert is not None else case.payload


def _as_time(value: tuple[int, int, int, int]) -> time:
    hour, minute, second, nanosecond = value
    return time(hour, minute, second, nanosecond // 1000)


def _as_datetime(value: tuple[int, ...]) -> datetime:
    return datetime.combine(date(*value[:3]), _as_time((value[3], value[4], value[5], value[6])))


def _as_range(convert: Plain) -> Plain:
    def raised(value: tuple[Any, Any]) -> Any:
        from asyncpg import Range

        low, high = value
        return Range(
            convert(low[0]) if low else None,
            convert(high[0]) if high else None,
            lower_inc=bool(low) and low[1] == "inclusive",
            upper_inc=bool(high) and high[1] == "inclusive",
        )

    return raised


_PARAMETERS: dict[str, Plain] = {
    "db-null": lambda _payload: None,
    "date": lambda value: date(*value),
    "time": _as_time,
    "datetime": _as_datetime,
    "timestamp": lambda seconds: datetime.fromtimestamp(seconds, UTC),
    "uuid": UUID,
    "jsonb": lambda data: json.dumps(json.loads(data)),
    "decimal": Decimal,
    "range-int32": _as_range(_same),
    "range-int64": _as_range(_same),
    "range-decimal": _as_range(Decimal),
    "array-decimal": lambda values: [Decimal(value) if value is not None else None for value in values],
}
