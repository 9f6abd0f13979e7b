"""What is behind an application, as ``/runtime-config.toml`` says: files, and servers with what they are asked by."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from shimd.apps.spin import keys
from shimd.apps.spin.fields import ManifestTable


class ServiceError(Exception):
    """A server cannot be reached, or answers what it should not. A sentence, without what is secret."""


@dataclass(frozen=True)
class File:
    """One of SQLite's: a database, or key-value stores."""

    path: Path
    attaches: bool = False
    """Whether statements may attach other files, which may be another component's."""


@dataclass(frozen=True)
class Models:
    """A server of language models (``[llm_compute]``)."""

    url: str
    token: str = field(repr=False)
    open_ai: bool = False
    """Whether it has OpenAI's protocol, and not Spin's own."""


@dataclass(frozen=True)
class Vault:
    """A provider of variables: a secrets engine (KV, version 2) of HashiCorp's Vault."""

    url: str
    token: str = field(repr=False)
    mount: str
    prefix: str = ""


@dataclass(frozen=True)
class Libsql:
    """A database of libSQL or Turso, by HTTP."""

    url: str
    token: str = field(repr=False)


def models(table: ManifestTable) -> Models | None:
    """:param table: the whole configuration

    :raises InvalidSetting: what is wrong, and where"""
    settings = table.table("llm_compute", optional=True)
    if not settings.values:
        return None
    if (kind := settings.values.get("type")) != "remote_http":
        raise settings.wrong("type", f'is {kind!r}; shimd runs no models, but asks for "remote_http": a server of them')
    api = settings.of(keys.LLM).text("api_type", "default")
    if api not in ("default", "open_ai"):
        raise settings.wrong("api_type", f'is "{api}", and is "default" or "open_ai"')
    return Models(_url(settings), _token(settings, "auth_token"), api == "open_ai")


def vault(settings: ManifestTable) -> Vault:
    """:raises InvalidSetting: what is wrong, and where"""
    return Vault(_url(settings), _token(settings, "token"), settings.text("mount"), settings.text("prefix", ""))


def libsql(settings: ManifestTable) -> Libsql:
    """:raises InvalidSetting: what is wrong, and where"""
    return Libsql(_url(settings), _token(settings, "token"))


def _token(settings: ManifestTable, name: str) -> str:
    token = settings.text(name)
    if not token.isascii() or not token.isprintable():
        raise settings.wrong(name, "has what no header can hold")
    return token


def _url(settings: ManifestTable) -> str:
    url = settings.text("url")
    try:
        parts = urlsplit(url)
        there = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        there = False
    if not there or not url.isascii() or not url.isprintable() or " " in url:
        raise settings.wrong("url", f'is "{url}", which is not http://HOST[:PORT] or https://HOST[:PORT]')
    return url
