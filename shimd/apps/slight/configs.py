"""``configs``: values for the guest, from the container's variables or the slightfile's secrets."""

from shimd.apps.slight.backend import Opener, fail
from shimd.apps.slight.secrets import MissingSecret, SecretStores
from shimd.apps.slight.slightfile import Slightfile


class Configs:
    """Provides ``configs`` to guests."""

    def __init__(self, slightfile: Slightfile, stores: SecretStores) -> None:
        self._opener = Opener(
            slightfile,
            "configs",
            {
                "envvars": lambda _capability, _name: ConfigValues(stores, "envvars"),
                "usersecrets": lambda _capability, _name: ConfigValues(stores, "usersecrets"),
            },
        )

    def configs_open(self, name: str) -> "ConfigValues":
        values: ConfigValues = self._opener.open(name)
        return values


class ConfigValues:
    """The values that guests set: all instances see them, as long as the application runs."""

    def __init__(self, stores: SecretStores, store: str) -> None:
        self._stores = stores
        self._store = store

    def get(self, key: str) -> bytes:
        try:
            return self._stores.get(self._store, key).encode()
        except MissingSecret as error:
            fail("not-found", error)

    def set(self, key: str, value: bytes) -> None:
        try:
            self._stores.set(self._store, key, value.decode())
        except UnicodeDecodeError:
            fail("invalid-value", f"the value of {key} is not UTF-8")
        except MissingSecret as error:
            fail("io-error", error)
