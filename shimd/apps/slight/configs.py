"""``configs``: values for the guest, from the container's variables or the slightfile's secrets."""

from shimd.apps.slight.backend import Opener, fail
from shimd.apps.slight.secrets import Missing, Stores
from shimd.apps.slight.slightfile import Slightfile


class Configs:
    """Provides ``configs`` to guests."""

    def __init__(self, slightfile: Slightfile, stores: Stores) -> None:
        self._opener = Opener(
            slightfile,
            "configs",
            {
                "envvars": lambda _capability, _name: Values(stores, "envvars"),
                "usersecrets": lambda _capability, _name: Values(stores, "usersecrets"),
            },
        )

    def configs_open(self, name: str) -> "Values":
        values: Values = self._opener.open(name)
        return values


class Values:
    """The values that guests set: all instances see them, as long as the application runs."""

    def __init__(self, stores: Stores, store: str) -> None:
        self._stores = stores
        self._store = store

    def get(self, key: str) -> bytes:
        try:
            return self._stores.get(self._store, key).encode()
        except Missing as error:
            fail("not-found", error)

    def set(self, key: str, value: bytes) -> None:
        try:
            self._stores.set(self._store, key, value.decode())
        except UnicodeDecodeError:
            fail("invalid-value", f"the value of {key} is not UTF-8")
        except Missing as error:
            fail("io-error", error)
