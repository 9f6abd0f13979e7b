"""Variables whose values a server holds: secrets of HashiCorp's Vault, read each time that one is asked for."""

import json
from urllib.parse import quote

from shimd.apps.spin.backends import ServiceError, Vault
from shimd.apps.spin.services import Services, shown

#: Seconds.
_PATIENCE = 30.0


class Secrets:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def read(self, vault: Vault, name: str) -> str | None:
        """Returns the field ``value`` of a secret; ``None``: there is no such secret, and another provider is asked.

        :raises ServiceError: the server cannot be asked, or says that it is not to be
        """
        path = f"{vault.prefix}/{name}" if vault.prefix else name
        url = f"{vault.url.rstrip('/')}/v1/{quote(vault.mount.strip('/'))}/data/{quote(path.strip('/'))}"
        headers = {"X-Vault-Token": vault.token, "X-Vault-Request": "true"}
        status, text = await self._services.ask("GET", url, headers, patience=_PATIENCE)
        if status == 404:
            return None
        where = f"Vault at {shown(url)}"
        if status != 200:
            raise ServiceError(f"{where} answers {status}{_reason(text)}")
        try:
            value = json.loads(text)["data"]["data"]["value"]
        except (ValueError, TypeError, LookupError):
            value = None
        if not isinstance(value, str):
            raise ServiceError(f"{where}: the secret {path} has no field named value with a text")
        return value


def _reason(text: bytes) -> str:
    try:
        errors = json.loads(text)["errors"]
        return f": {'; '.join(map(str, errors))}" if errors else ""
    except (ValueError, TypeError, LookupError):
        return ""
