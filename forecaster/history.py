"""What was asked of each model, minute by minute: the memory that forecasts are made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from math import ceil, isfinite

import numpy as np

from forecaster.series import Floats, Ints, Series

BIN_S = 60
"""A minute is as fine as capacity can follow, and sixty seconds of arrivals are enough for a rate."""
BINS_MOST = 45 * 1_440
"""45 days of minutes: six weeks for the weekly shape and no older, since traffic drifts; 2.6 MB a key at most."""
KEYS_MOST = 256
"""More models than one fleet serves; it bounds memory should names be made up by clients."""
_GAP_S = 1.5 * BIN_S
"""After a longer silence nobody knows in which bin the demand fell."""
_STEP_S = 1.0
"""A larger drift between wall and monotonic time is a clock being set: slewing makes 0.05 s in the longest interval."""
_STEP_BACK_S = BIN_S / 2
"""A step back by less is absorbed within a bin; after a larger one the minutes to come have yet to happen."""
_WHOLE_S = 1.0
"""A bin covered to within a second is whole, so that counts stay counts."""
_MOST_TOTAL = 1e18
"""A billion tokens a second for thirty years. A counter beyond it is broken, and sums of such would overflow."""
_FIRST_ROOM = 256


class Quantity(StrEnum):
    """What is counted. All of it is offered demand: served, queued and rejected."""

    REQUESTS = "requests"
    PROMPT_TOKENS = "prompt_tokens"
    OUTPUT_TOKENS = "output_tokens"


_COLUMN = {quantity: column for column, quantity in enumerate(Quantity)}


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since some start. They rise until the process that counts is restarted."""

    requests: float
    prompt_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class Row:
    """The demand of one whole minute, as it is stored. A minute that nobody saw has no row."""

    key: str
    start_s: int
    """Epoch seconds, a multiple of 60."""
    requests: float
    prompt_tokens: float
    output_tokens: float


class Noted(Enum):
    """What became of a reading."""

    RECORDED = "the demand since the last reading was added"
    FIRST = "the first reading of this key: later ones are counted from it"
    GAP = "the last reading is too old to tell when the demand came; it stays unknown"
    RESET = "a counter fell, so its process was restarted; the demand since the last reading stays unknown"
    CLOCK_FORWARD = "recorded; the clock was set forward, and what it skipped stays unknown"
    CLOCK_BACK = "recorded; the clock was set back, and bins that it had not reached again were dropped"
    REFUSED = "no time since the last reading, or a number that is negative, not finite or beyond all counting"


@dataclass(frozen=True, slots=True)
class _Reading:
    totals: Floats
    wall_s: float
    mono_s: float


@dataclass(slots=True)
class _Track:
    """The bins of one key in rising order; unknown ones are absent, so that a wrong clock evicts nothing."""

    bins: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """Bin numbers: epoch seconds / 60."""
    sums: Floats = field(default_factory=lambda: np.empty((0, len(Quantity))))
    covered: Floats = field(default_factory=lambda: np.empty(0))
    used: int = 0
    """Of the three arrays above; the rest is room."""
    last: _Reading | None = None

    @property
    def newest(self) -> int | None:
        return int(self.bins[self.used - 1]) if self.used else None

    def add(self, bin_: int, amounts: Floats, seconds: float, most: int) -> None:
        """`bin_` is the newest or later."""
        if self.newest != bin_:
            self._make_room(most)
            self.bins[self.used] = bin_
            self.sums[self.used] = 0.0
            self.covered[self.used] = 0.0
            self.used += 1
        self.sums[self.used - 1] += amounts
        self.covered[self.used - 1] += seconds

    def drop_from(self, bin_: int) -> None:
        self.used = int(np.searchsorted(self.bins[: self.used], bin_))

    def known(self, first: int, end: int) -> tuple[Ints, Floats]:
        """Bins in [first, end) of which enough was seen, and their sums (a row a bin), scaled to the whole minute."""
        span = slice(*np.searchsorted(self.bins[: self.used], (first, end)).tolist())
        covered = self.covered[span]
        whole = np.abs(covered - BIN_S) <= _WHOLE_S
        scale = np.where(whole, 1.0, BIN_S / np.maximum(covered, BIN_S / 2))
        enough = covered >= BIN_S / 2
        return self.bins[span][enough], (self.sums[span] * scale[:, None])[enough]

    def put(self, bins: Ints, sums: Floats, most: int) -> None:
        """Replace these bins, whole ones; keep the newest `most`."""
        at = np.concatenate((self.bins[: self.used], bins))
        order = np.argsort(at, kind="stable")
        ordered = at[order]
        keep = order[np.append(ordered[1:] != ordered[:-1], True)[: ordered.size]][-most:]
        self.bins = at[keep]
        self.sums = np.concatenate((self.sums[: self.used], sums))[keep]
        self.covered = np.concatenate((self.covered[: self.used], np.full(len(bins), float(BIN_S))))[keep]
        self.used = len(self.bins)

    def _make_room(self, most: int) -> None:
        if self.used < len(self.bins):
            return
        # Whoever is at the bound gives up a sixteenth at once, so that moving the rest is rare.
        first = max(0, self.used - (most - most // 16)) if self.used >= most else 0
        kept = self.used - first
        room = min(most, max(_FIRST_ROOM, 2 * kept))
        bins, sums, covered = np.empty(room, np.int64), np.empty((room, len(Quantity))), np.empty(room)
        bins[:kept], sums[:kept], covered[:kept] = (a[first : self.used] for a in (self.bins, self.sums, self.covered))
        self.bins, self.sums, self.covered, self.used = bins, sums, covered, kept


class History:
    """Demand per key (a model) in one-minute bins of epoch time, which knows no daylight saving.

    Fed with readings of counters; what happened between two readings is spread evenly over the time between them.
    Unknown stays unknown: it is NaN and never zero. One writer; no locks.
    """

    def __init__(self, *, bins_most: int = BINS_MOST, keys_most: int = KEYS_MOST) -> None:
        """`bins_most`: bins kept per key; `keys_most`: keys kept, of which the longest silent one gives way."""
        if bins_most < 1 or keys_most < 1:
            raise ValueError(f"bins_most = {bins_most} and keys_most = {keys_most} must be at least 1")
        self._bins_most = bins_most
        self._keys_most = keys_most
        self._tracks: dict[str, _Track] = {}

    def keys(self) -> tuple[str, ...]:
        return tuple(self._tracks)

    def observe(self, key: str, counters: Counters, *, wall_s: float, mono_s: float) -> Noted:
        """Take a reading made at `wall_s` (epoch), which was `mono_s` (monotonic); the answer says what came of it."""
        totals = np.array([counters.requests, counters.prompt_tokens, counters.output_tokens], np.float64)
        sound = bool(((totals >= 0) & (totals <= _MOST_TOTAL)).all())
        if not (sound and isfinite(mono_s) and 0 <= wall_s < _MOST_TOTAL):
            return Noted.REFUSED
        track = self._track(key)
        last = track.last
        if last is None or mono_s < last.mono_s:
            track.last = _Reading(totals, wall_s, mono_s)
            return Noted.FIRST
        elapsed = mono_s - last.mono_s
        if elapsed == 0:
            return Noted.REFUSED
        track.last = _Reading(totals, wall_s, mono_s)
        step = wall_s - last.wall_s - elapsed
        begin = wall_s - elapsed
        if step < -_STEP_BACK_S:
            track.drop_from(int(begin // BIN_S))
        if elapsed > _GAP_S:
            return Noted.GAP
        if (totals < last.totals).any():
            return Noted.RESET
        self._spread(track, begin, elapsed, totals - last.totals)
        if abs(step) <= _STEP_S:
            return Noted.RECORDED
        return Noted.CLOCK_FORWARD if step > 0 else Noted.CLOCK_BACK

    def series(
        self, key: str, quantity: Quantity, *, now_s: float, step_s: int = BIN_S, since_s: float = 0.0
    ) -> Series:
        """Demand up to the last bin that had ended at `now_s`, in bins of `step_s` that start on multiples of it, from
        those on that started at `since_s`.

        `step_s` is a multiple of 60. A minute of which half or more was seen is scaled up to the whole, with less it is
        NaN, as are those since the last reading. Empty where nothing is known of the key. Raises SeriesError.
        """
        end = int(now_s // BIN_S)
        track = self._tracks.get(key)
        bins, sums = _NOTHING if track is None else track.known(max(end - self._bins_most, ceil(since_s / BIN_S)), end)
        if not bins.size:
            return Series(end * BIN_S // step_s * step_s, step_s, np.empty(0))
        start_s = int(bins[0]) * BIN_S // step_s * step_s
        values = np.full(end - start_s // BIN_S, np.nan)
        values[bins - start_s // BIN_S] = sums[:, _COLUMN[quantity]]
        minutes = Series(start_s, BIN_S, values)
        return minutes if step_s == BIN_S else minutes.binned(step_s)

    def dump(self, *, now_s: float, since_s: float = 0.0) -> Iterator[Row]:
        """Known minutes that started at `since_s` or later and had ended at `now_s`, to be stored and taken back."""
        for key, track in self._tracks.items():
            bins, sums = track.known(ceil(since_s / BIN_S), int(now_s // BIN_S))
            for bin_, (requests, prompt_tokens, output_tokens) in zip(bins.tolist(), sums.tolist(), strict=True):
                yield Row(key, bin_ * BIN_S, requests, prompt_tokens, output_tokens)

    def load(self, rows: Iterable[Row], *, now_s: float) -> int:
        """Take minutes back, in any order; of one that is known already the row wins. How many were taken.

        Rows that cannot be (not ended at `now_s`, not on a minute, negative, not finite) are left out.
        """
        per_key: dict[str, list[Row]] = {}
        for row in rows:
            if _sound(row, now_s):
                per_key.setdefault(row.key, []).append(row)
        for key, mine in per_key.items():
            self._track(key).put(
                np.array([row.start_s // BIN_S for row in mine], np.int64),
                np.array([(row.requests, row.prompt_tokens, row.output_tokens) for row in mine], np.float64),
                self._bins_most,
            )
        return sum(map(len, per_key.values()))

    def _track(self, key: str) -> _Track:
        track = self._tracks.get(key)
        if track is None:
            if len(self._tracks) >= self._keys_most:
                del self._tracks[min(self._tracks, key=lambda name: _heard_s(self._tracks[name]))]
            track = self._tracks[key] = _Track()
        return track

    def _spread(self, track: _Track, begin: float, elapsed: float, amounts: Floats) -> None:
        # After a small step back time goes on where it was: bins stay in order, and rates stay right.
        at = max(begin, 0.0 if track.newest is None else float(track.newest * BIN_S))
        end = at + elapsed
        while at < end:
            bin_ = int(at // BIN_S)
            until = min(end, float((bin_ + 1) * BIN_S))
            track.add(bin_, amounts * ((until - at) / elapsed), until - at, self._bins_most)
            at = until


def _heard_s(track: _Track) -> float:
    if track.last is not None:
        return track.last.wall_s
    return 0.0 if track.newest is None else float(track.newest * BIN_S)


def _sound(row: Row, now_s: float) -> bool:
    amounts = (row.requests, row.prompt_tokens, row.output_tokens)
    on_grid = row.start_s % BIN_S == 0 and 0 <= row.start_s <= now_s - BIN_S
    return on_grid and all(0 <= amount <= _MOST_TOTAL for amount in amounts)


_NOTHING = (np.empty(0, np.int64), np.empty((0, len(Quantity))))
