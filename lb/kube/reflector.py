"""Keeps a copy of a collection up to date: lists once, watches, and lists again when it must.

A shell around `fold`: it owns the connection and decides only when to ask again, which the API prescribes.
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from lb.clock import SYSTEM_CLOCK, Clock
from lb.kube.api import WATCH_S, Event, KubeApi, Query
from lb.kube.errors import GoneError, KubeError, UnavailableError
from lb.kube.fold import Fold, Object
from lb.kube.shape import WHOLE, Shape

log = logging.getLogger(__name__)

IDLE_S = 90.0
"""Silence after which a watch is opened anew. The server sends a bookmark a minute, so silence means a dead connection
or a server that hangs; where it means neither, a new watch costs one call."""


@dataclass(slots=True)
class ReflectorState:
    """How it is doing. Written by the reflector alone."""

    heard_at: float | None = None
    """Monotonic instant of the last sign of life from the API: its age is how old the copy may be. None: never."""
    synced: bool = False
    """Whether a whole list has ever been seen."""
    error: str | None = None
    """Why the last call failed; None: it did not."""
    lists: int = 0
    watches: int = 0
    failures: int = 0
    """Calls that failed, and watches that broke."""
    stale_events: int = 0
    """Events left aside because a newer one about the same object had come."""


class Reflector:
    """One collection. `changed` gets all objects after each list or batch of events that made a difference.

    What was seen last stays in force while the API cannot be asked: `changed` is not called then, `noticed` is.
    """

    def __init__(
        self,
        api: KubeApi,
        path: str,
        changed: Callable[[Sequence[Object]], None],
        *,
        query: Query | None = None,
        shape: Shape = WHOLE,
        noticed: Callable[[], None] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
        idle_s: float = IDLE_S,
        watch_s: float = WATCH_S,
    ) -> None:
        self.state = ReflectorState()
        self._api = api
        self._path = path
        self._changed = changed
        self._query: Mapping[str, str | int | bool] = query or {}
        self._shape = shape
        self._noticed = noticed
        self._clock = clock
        self._idle_s = idle_s
        self._watch_s = watch_s
        self._fold = Fold()
        self._untold = True
        """Whether `changed` has yet to hear of something: an empty first list, too, and again where it failed."""

    async def run(self) -> None:
        """Ends only by cancellation. The API's pace makes the pauses between tries."""
        while True:
            try:
                if self._fold.resource_version is None:
                    await self._list()
                await self._watch()
            except GoneError as gone:
                # Not a failure of ours: history is kept for minutes only, and we have been away for longer.
                self._fold.expire()
                self._failed(gone)
            except KubeError as error:
                # A list costs little and is always right, even where the API came back with an older history than ours
                # (etcd restored from a backup), of which a watch would never tell.
                self._fold.expire()
                self._failed(error)
            except Exception as error:
                # A mistake of ours or of the client library must not end the process: it has requests to serve.
                log.exception("a watch of the Kubernetes API failed unexpectedly", extra={"path": self._path})
                self._fold.expire()
                self._api.pace.failed(self._clock.monotonic(), growing=True)
                self._failed(UnavailableError(f"{self._path}: {type(error).__name__}: {error}"))

    async def _list(self) -> None:
        listing = await self._api.list_all(self._path, self._query, patient=True, shape=self._shape)
        if not listing.resource_version:
            raise UnavailableError(f"GET {self._path}: the list has no resourceVersion")
        self.state.lists += 1
        self.state.synced = True
        self._untold |= self._fold.replace(listing.items, listing.resource_version)
        self._heard()
        self._tell()

    async def _watch(self) -> None:
        version = self._fold.resource_version
        assert version is not None
        self.state.watches += 1
        batches = self._api.watch(
            self._path,
            self._query,
            resource_version=version,
            idle_s=self._idle_s,
            watch_s=self._watch_s,
            opened=self._heard,
            shape=self._shape,
        )
        async with aclosing(batches):
            async for batch in batches:
                self._take(batch)
                await asyncio.sleep(0)  # a flood of events leaves the request path its turns

    def _take(self, batch: list[Event]) -> None:
        try:
            for event in batch:
                self._untold |= self._fold.apply(event.kind, event.object)
        except ValueError as error:
            raise UnavailableError(f"watch {self._path}: {error}") from None
        finally:
            self.state.stale_events = self._fold.stale
            self._tell()
        self._heard()

    def _tell(self) -> None:
        if self._untold:
            self._changed(tuple(self._fold.objects.values()))
            self._untold = False

    def _heard(self) -> None:
        if self.state.error is not None:
            log.info("the Kubernetes API answers again", extra={"path": self._path})
        self.state.heard_at = self._clock.monotonic()
        self.state.error = None
        self._noticed()

    def _failed(self, error: KubeError) -> None:
        self.state.failures += 1
        if self.state.error is None:
            log.warning(
                "the Kubernetes API cannot be read, what was seen last stays",
                extra={"path": self._path, "error": str(error)},
            )
        self.state.error = str(error)
        self._noticed()
