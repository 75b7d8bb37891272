"""When a model that is costly to fit is fitted: once a day, on the last two weeks."""

from __future__ import annotations

from collections.abc import Iterator

_FIT_DAYS = 14
"""Days that are fitted on: two of every weekday, and a bounded price."""


def daily(day: int, low: int, high: int) -> Iterator[tuple[int, int, int, int]]:
    """Pieces of the origins [low, high): (fit from, fit up to, piece low, piece high), all ends exclusive.

    A fit ends at a multiple of a day, counted from the first bin and not after the piece's first origin, so what is
    said of an origin does not depend on which others are asked for. On the first day it is empty.
    """
    while low < high:
        end = low // day * day
        stop = min(high, end + day)
        yield max(0, end - _FIT_DAYS * day), end, low, stop
        low = stop
