"""What is told of an application by OpenTelemetry, and where to, as its variables say."""

import logging
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from shimd.engine import InvalidSetting

#: What can be told, each with an endpoint and a protocol of its own if need be.
SIGNALS = ("traces", "metrics", "logs")
HTTP, GRPC = "http/protobuf", "grpc"
_EVERY = "OTEL_EXPORTER_OTLP"
#: In the characters of RFC 3986: what other parsers refuse they may show, with its password.
_URL = re.compile(r"https?://[\w.~!$&'()*+,;=:@%\[\]-]+(?:[/?][\w.~!$&'()*+,;=:@%/?-]*)?", re.IGNORECASE | re.ASCII)
#: A header as a variable has it: what both protocols can send, and OpenTelemetry's libraries take.
_HEADER = re.compile(r"[\w.-]+ *= *[ !#-:<-\[\]-~]*", re.ASCII)


def protocols(env: Mapping[str, str]) -> dict[str, str]:
    """Returns the protocol of each signal that is to be told, by what an application's variables say.

    :raises InvalidSetting: there is no such protocol or endpoint, a limit is no number, or a header cannot be sent
    """
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return {}
    found = {signal: _protocol(env, signal) for signal in SIGNALS if _is_wanted(env, signal)}
    for signal in found:
        name, value = _first(env, signal, "TIMEOUT")
        if value and not value.isdecimal():
            raise InvalidSetting(f"{name}={value} is no number of milliseconds")
        _check_headers(*_first(env, signal, "HEADERS"))
    return found


def said(env: Mapping[str, str], signal: str, what: str) -> str:
    """Returns what a signal's own variable says, else that of all signals; empty: neither does."""
    return _first(env, signal, what)[1]


def _is_wanted(env: Mapping[str, str], signal: str) -> bool:
    left_out = env.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() == "none"
    return bool(endpoint(env, signal)) and not left_out


def endpoint(env: Mapping[str, str], signal: str) -> str:
    """Returns the URL that a signal is told to; empty: it is not."""
    return said(env, signal, "ENDPOINT")


def limit(env: Mapping[str, str], signal: str) -> float | None:
    """Returns the seconds that a request may take, since libraries in Python take the variables for that; ``None``: as
    many as they say."""
    text = said(env, signal, "TIMEOUT")
    return int(text) / 1000 if text else None


def take_logs(handler: logging.Handler) -> None:
    """Have the log of OpenTelemetry's libraries end there, and that of what they send by nowhere."""
    others = logging.NullHandler()
    for name, found in (("opentelemetry", handler), ("requests", others), ("urllib3", others)):
        logger = logging.getLogger(name)
        logger.propagate, logger.handlers = False, [found]


def _protocol(env: Mapping[str, str], signal: str) -> str:
    name, value = _first(env, signal, "ENDPOINT")
    if not _is_url(value):
        raise InvalidSetting(f"{name} is no address: http://HOST[:PORT] or https://HOST[:PORT] is meant")
    name, value = _first(env, signal, "PROTOCOL")
    if value and value not in (HTTP, GRPC):
        raise InvalidSetting(f"{name}={value} is neither {HTTP} nor {GRPC}")
    return value or HTTP


def _is_url(value: str) -> bool:
    with suppress(ValueError):
        parts = urlsplit(value)
        return bool(_URL.fullmatch(value) and parts.hostname) and parts.port != 0
    return False


def _check_headers(name: str, value: str) -> None:
    """Headers are secrets, often, and the libraries' errors have those that cannot be sent."""
    for number, header in enumerate(value.split(","), 1):
        text = header.strip()
        decoded = unquote(text)
        if text and not (_HEADER.fullmatch(text) and decoded.isascii() and decoded.isprintable()):
            raise InvalidSetting(
                f'header {number} of {name} is not NAME=VALUE, in letters that can be sent ("," is %2C)'
            )


def _first(env: Mapping[str, str], signal: str, what: str) -> tuple[str, str]:
    """Returns the name and the value of the variable that counts for a signal."""
    names = (f"{_EVERY}_{signal.upper()}_{what}", f"{_EVERY}_{what}")
    return next(((name, env[name]) for name in names if env.get(name)), ("", ""))


def servers(env: Mapping[str, str], signals: Collection[str]) -> str:
    """Returns whom signals are told to, without users and passwords, for messages."""
    return " and ".join(dict.fromkeys(_shown(endpoint(env, signal)) for signal in signals))


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
