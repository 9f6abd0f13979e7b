"""``blob-store``: Slight has clouds' only, which a slightfile cannot name here; a guest may import it nevertheless."""

from typing import NoReturn

from shimd.apps.slight import resources
from shimd.apps.slight.backend import fail


class BlobStore:
    """Provides ``blob-store``: every container is refused, naming the way out."""

    def container_open(self, name: str) -> NoReturn:
        fail("unexpected-error", f"{name} cannot be opened: a blob store is {resources.CLOUD['blobstore.aws_s3']}")
