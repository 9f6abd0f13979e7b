"""Values of configs: in place, or in a secret store (``${envvars.NAME}``; in specversion 0.1 all of them)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from shimd.apps.slight import resources, shortcrypt
from shimd.apps.slight.slightfile import ANY, Capability, Slightfile, wrong
from shimd.engine import InvalidSetting

_REFERENCE = re.compile(r"\$\{(?P<store>[^.}]+)\.(?P<key>[^}]+)\}\Z")
#: Relative to the directory of temporary files.
KEY_FILE = ".slightkey"


class MissingSecret(LookupError):
    """A store has no such value; the message says so in a sentence's second half."""


class SecretStores:
    """The secret stores of an application."""

    def __init__(self, slightfile: Slightfile, env: Mapping[str, str], read: Callable[[str], bytes | None]) -> None:
        """:param read: a file of the container's, now; ``None`` if it is not there"""
        self._secrets = dict(slightfile.secrets)
        self._variables = dict(env)
        self._key_path = f"{directory(env)}/{KEY_FILE}"
        self._key_bytes = read(self._key_path)

    def get(self, store: str, key: str) -> str:
        """:raises MissingSecret: there is none"""
        match store:
            case "local":
                return key
            case "envvars":
                if key not in self._variables:
                    raise MissingSecret(f"the container has no variable {key}")
                return self._variables[key]
            case "usersecrets":
                return self._secret(key)
            case _:
                reason = resources.CLOUD.get(f"configs.{store}", "which is none of envvars, usersecrets")
                raise MissingSecret(f"the store is {store}, {reason}")

    def set(self, store: str, key: str, value: str) -> None:
        """Set a value for as long as the application runs."""
        if store == "envvars":
            self._variables[key] = value
        else:
            self._secrets[key] = shortcrypt.encrypt(self._key(), value.encode())

    def _secret(self, key: str) -> str:
        if key not in self._secrets:
            raise MissingSecret(f"there are no secret_settings of the name {key}")
        try:
            return shortcrypt.decrypt(self._key(), self._secrets[key]).decode()
        except ValueError:
            raise MissingSecret(f"{self._key_path} is not the key that {key} was encrypted with") from None

    def _key(self) -> bytes:
        if not self._key_bytes:
            raise MissingSecret(
                f"there is no key {self._key_path} (slight's secret command makes it) to read secrets by"
            )
        return self._key_bytes


def directory(env: Mapping[str, str]) -> str:
    """Returns the directory where Slight keeps what is on the file system."""
    return (env.get("TMPDIR") or "/tmp").rstrip("/")


def resolved(slightfile: Slightfile, stores: SecretStores) -> Slightfile:
    """Returns the slightfile with the configs' values in place.

    :raises InvalidSetting: one is missing; the message names the field
    """
    return replace(slightfile, capabilities=[_resolved(one, slightfile, stores) for one in slightfile.capabilities])


def _resolved(capability: Capability, slightfile: Slightfile, stores: SecretStores) -> Capability:
    configs = dict(capability.configs)
    if slightfile.secret_store:
        configs = {name: f"${{{slightfile.secret_store}.{name}}}" for name in resources.CONFIGS[capability.resource]}
    for name in resources.CONFIGS[capability.resource]:
        if name not in configs:
            way_out = " (or secret_store)" if capability.name == ANY else ""
            wrong(f"{capability.where}.configs.{name}", f"is missing, and {capability.resource} needs it{way_out}")
    found = {name: _value(value, stores, f"{capability.where}.configs.{name}") for name, value in configs.items()}
    return replace(capability, configs=found)


def _value(text: str, stores: SecretStores, where: str) -> str:
    match = _REFERENCE.match(text)
    if match is None:
        return text
    try:
        return stores.get(match["store"], match["key"])
    except MissingSecret as error:
        raise InvalidSetting(f"/slightfile.toml: {where} is {text}, and {error}") from None
