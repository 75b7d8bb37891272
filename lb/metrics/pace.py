"""Making the text of a scrape without standing in the event loop's way.

The text is made in a thread, but Python runs one thread at a time and takes the turn from another only after 5 ms. So
the scraping thread gives way by itself, after some hundred microseconds of work.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

SAMPLES = 64
"""Samples between two pauses: 0.2 to 0.4 ms of work."""
PAUSE_S = 5e-5
"""Not 0: the thread that waits needs some 50 us to wake up, and a thread that only yields is back before it."""


def give_way() -> None:
    """Let the event loop's thread run if it wants to. Not to be called on that thread."""
    time.sleep(PAUSE_S)


class _Paced(list[Sample]):
    """Samples that give way while they are read."""

    def __iter__(self) -> Iterator[Sample]:
        for number, sample in enumerate(super().__iter__()):
            if number % SAMPLES == SAMPLES - 1:
                give_way()
            yield sample


def paced(families: Iterable[Metric]) -> Iterator[Metric]:
    """The same families, read at an easy pace."""
    for family in families:
        give_way()
        family.samples = _Paced(family.samples)
        yield family
