"""A copy of a collection, from a list and the events after it. Pure.

A list is the truth and replaces everything. An event is believed unless a newer one about the same object has been
seen: connections that are made again repeat events, and a proxy may hold some back. Versions are compared as numbers,
which the API allows since Kubernetes 1.35 and etcd has always done; where they are none, the later event wins.
https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

MOST_GRAVES = 10_000
"""Deleted objects whose version is remembered until the next list, so that a late event does not bring them back."""

Object = Mapping[str, Any]
Key = tuple[str, str]
"""Namespace and name."""


class Fold:
    """Objects by namespace and name."""

    def __init__(self) -> None:
        self._objects: dict[Key, Object] = {}
        self._graves: dict[Key, int] = {}
        self.resource_version: str | None = None
        """Where a watch goes on; None: list first."""
        self.stale = 0
        """Events that were older than what was known."""

    @property
    def objects(self) -> Mapping[Key, Object]:
        return MappingProxyType(self._objects)

    def replace(self, items: Iterable[Object], resource_version: str) -> bool:
        """Take a whole list. Returns whether anything is different."""
        objects = {key: item for item in items if (key := key_of(item)) is not None}
        changed = objects != self._objects
        self._objects = objects
        self._graves.clear()
        self.resource_version = resource_version or None
        return changed

    def expire(self) -> None:
        """The version is too old to go on from. What is known stays until the next list."""
        self.resource_version = None

    def apply(self, kind: str, item: Object) -> bool:
        """Take one event. Returns whether anything is different. Raises ValueError for what no API server sends."""
        version = version_of(item)
        if kind == "BOOKMARK":
            self._advance(version)
            return False
        key = key_of(item)
        if key is None or kind not in ("ADDED", "MODIFIED", "DELETED"):
            raise ValueError(f"an event {kind!r} about {item.get('kind')!r} {key}")
        known = self._objects.get(key)
        if self._is_stale(key, known, version):
            self.stale += 1
            return False
        self._advance(version)
        if kind == "DELETED":
            self._bury(key, version)
            return self._objects.pop(key, None) is not None
        self._graves.pop(key, None)
        self._objects[key] = item
        return known != item

    def _is_stale(self, key: Key, known: Object | None, version: str) -> bool:
        number = _number(version)
        if number is None:
            return False
        before = self._graves.get(key) if known is None else _number(version_of(known))
        return before is not None and number <= before

    def _bury(self, key: Key, version: str) -> None:
        number = _number(version)
        if number is None:
            return
        self._graves[key] = number
        if len(self._graves) > MOST_GRAVES:
            del self._graves[next(iter(self._graves))]

    def _advance(self, version: str) -> None:
        """Never back: a late event does not make the next watch repeat what came before it."""
        new, old = _number(version), _number(self.resource_version or "")
        if version and (new is None or old is None or new > old):
            self.resource_version = version


def key_of(item: Object) -> Key | None:
    """None for what has no name."""
    metadata = item.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or not name or not isinstance(metadata, Mapping):
        return None
    return str(metadata.get("namespace") or ""), name


def version_of(item: Object) -> str:
    """Its resourceVersion, or an empty string."""
    metadata = item.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, Mapping) else None
    return version if isinstance(version, str) else ""


def _number(version: str) -> int | None:
    return int(version) if version.isascii() and version.isdigit() and len(version) <= 20 else None
