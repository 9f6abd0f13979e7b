"""``keyvalue``: a directory of files, or Redis."""

import os
import tempfile
from pathlib import Path
from typing import Any

from shimd.apps.slight.backend import Opener, fail, failing, file_name
from shimd.apps.slight.slightfile import Capability, Slightfile

#: Seconds to connect to a server, or to wait for its answer.
PATIENCE = 10


class Keyvalue:
    """Provides ``keyvalue`` to guests."""

    def __init__(self, slightfile: Slightfile, directory: str) -> None:
        """:param directory: of temporary files, where stores of files are"""
        self._stores = Opener(
            slightfile,
            "keyvalue",
            {"filesystem": lambda _capability, name: FilesBackend(Path(directory), name), "redis": RedisBackend},
        )

    def keyvalue_open(self, name: str) -> "FilesBackend | RedisBackend":
        store: FilesBackend | RedisBackend = self._stores.open(name)
        return store


class FilesBackend:
    """A file for each key."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory / file_name("unexpected-error", name)

    def get(self, key: str) -> bytes:
        with failing(_FILE_ERRORS):
            return self._path(key).read_bytes()

    def set(self, key: str, value: bytes) -> None:
        """Set a value. Another reader sees the value before or this one, never half of it."""
        path = self._path(key)
        with failing(_FILE_ERRORS):
            self._directory.mkdir(parents=True, exist_ok=True)
            file, name = tempfile.mkstemp(dir=self._directory, prefix=_UNFINISHED)
            try:
                with open(file, "wb") as writer:
                    writer.write(value)
                os.rename(name, path)
            except OSError:
                os.unlink(name)
                raise

    def keys(self) -> list[str]:
        with failing({OSError: "io-error"}):
            if not self._directory.exists():
                return []
            return sorted(name for name in os.listdir(self._directory) if not name.startswith(_UNFINISHED))

    def delete(self, key: str) -> None:
        with failing(_FILE_ERRORS):
            self._path(key).unlink()

    def _path(self, key: str) -> Path:
        if key.startswith(_UNFINISHED):
            fail("invalid-key", f"{key!r} is a name of ours")
        return self._directory / file_name("invalid-key", key)


#: How names of files begin that are not written to their end yet.
_UNFINISHED = ".shimd-"
_FILE_ERRORS = {FileNotFoundError: "key-not-found", OSError: "io-error"}


class RedisBackend:
    """Keys are the store's name, a colon, and the guest's key, as Slight's own host has them."""

    def __init__(self, capability: Capability, name: str) -> None:
        import redis

        self._prefix = f"{name}:"
        self._errors = {
            redis.AuthenticationError: "authentication-error",
            redis.TimeoutError: "timeout-error",
            redis.ConnectionError: "connection-error",
        }
        with failing({ValueError: "connection-error"}):
            self._client: redis.Redis = redis.Redis.from_url(
                capability.configs["REDIS_ADDRESS"], socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE
            )

    def get(self, key: str) -> bytes:
        with failing(self._errors):
            value: Any = self._client.get(self._prefix + key)
        if value is None:
            fail("key-not-found", f"there is no key {key}")
        return bytes(value)

    def set(self, key: str, value: bytes) -> None:
        with failing(self._errors):
            self._client.set(self._prefix + key, value)

    def keys(self) -> list[str]:
        with failing(self._errors):
            found = self._client.scan_iter(match=_literally(self._prefix) + "*", count=1000)
            return sorted({key.decode()[len(self._prefix) :] for key in found})

    def delete(self, key: str) -> None:
        """Delete a key. It is no error if there is none, as Redis has it."""
        with failing(self._errors):
            self._client.delete(self._prefix + key)


def _literally(text: str) -> str:
    """Returns the pattern that matches only this text (https://redis.io/commands/keys)."""
    return "".join(f"\\{character}" if character in "*?[]^\\" else character for character in text)
