"""Tells which resource types of a component's imports are the same: interfaces use each other's by other names."""

from wasmtime.component import ResourceType


class Resources:
    """Numbers for the resource types of one component, by which its host's are told apart."""

    def __init__(self) -> None:
        self._known: list[tuple[ResourceType, ResourceType]] = []
        """Resource types as the component's type has them, and as an instance has them: the host's, of a number."""

    def id_of(self, kind: ResourceType) -> int:
        """Returns the number of a resource type; it is the same wherever the type is used, under whatever name."""
        for number, known in enumerate(self._known):
            if kind in known:
                return number
        number = len(self._known)
        self._known.append((kind, ResourceType.host(number)))
        return number
