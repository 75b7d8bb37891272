"""An array that grows at its end."""

from __future__ import annotations

import numpy as np

from forecaster.series import Floats

_FIRST_ROOM = 256


class Rows:
    """Rows of one shape, appended in amortised constant time per row."""

    def __init__(self, *shape: int) -> None:
        self._data: Floats = np.empty((_FIRST_ROOM, *shape))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def all(self) -> Floats:
        """A view: [row, ...]. It is good until the next append."""
        return self._data[: self._count]

    def append(self, rows: Floats) -> None:
        """Add rows [row, ...] at the end."""
        count = self._count + len(rows)
        if count > len(self._data):
            room = np.empty((max(count, 2 * len(self._data)), *self._data.shape[1:]))
            room[: self._count] = self.all
            self._data = room
        self._data[self._count : count] = rows
        self._count = count

    def forget(self, count: int) -> None:
        """Drop the first rows."""
        keep = self._count - count
        self._data[:keep] = self._data[count : self._count]
        self._count = keep
