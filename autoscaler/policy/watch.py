"""Notices that the policy file holds something else than before.

By polling its state and content: inotify misses network file systems, and what Kubernetes swaps is a symlink two
levels above the file.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from lb.yaml_document import MAX_BYTES

POLL_S = 1.0
"""An operator who saved a file and looks at the log sees the reload by then."""

State = tuple[int, int, int, int]


class FileWatch:
    """One file. A change counts once its content was the same in two looks, so that a file that is still being
    written is not read in the middle, and it counts once."""

    def __init__(self, path: Path, digest: str) -> None:
        self._path = path
        self._digest = digest
        self._state: State | None = None
        self._settling: str | None = None

    def take(self) -> None:
        """What the file holds now is being handled for another reason than this watch; it is no change any more."""
        try:
            self._digest = self._read()
        except OSError:
            # Whoever reads it next says so.
            return

    def _read(self) -> str:
        with self._path.open("rb") as file:
            return hashlib.sha256(file.read(MAX_BYTES + 1)).hexdigest()

    def changed(self) -> bool:
        """Look once. True: the content is new, at rest, and now counts as handled."""
        try:
            stat = self._path.stat()
            state = (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if state == self._state and self._settling is None:
                return False
            digest = self._read()
        except OSError:
            # Between two versions, or gone: what is in force stays in force.
            self._state = self._settling = None
            return False
        at_rest = state == self._state and digest == self._settling
        self._state = state
        if digest == self._digest:
            self._settling = None
            return False
        if not at_rest:
            self._settling = digest
            return False
        self._digest = digest
        self._settling = None
        return True


async def watch(files: FileWatch, reload: Callable[[], None], poll_s: float = POLL_S) -> None:
    """Call `reload` after each change; ends only by cancellation."""
    while True:
        await asyncio.sleep(poll_s)
        if files.changed():
            reload()
