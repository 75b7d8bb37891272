"""How long an answer will be, and how much of it is left once part of it has streamed."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import accumulate
from math import erf, log, log2, sqrt
from operator import mul
from struct import Struct
from typing import TypeVar

from lb.settings import CostSettings

Key = TypeVar("Key")

_PER_OCTAVE = 4
"""Bins per doubling: 19 % wide, finer than any prediction of a length can be."""
_OCTAVES = 18
BINS = _PER_OCTAVE * _OCTAVES
"""Up to 2**18 tokens, twice the longest answer that current models give."""
_EDGES: tuple[float, ...] = tuple(2.0 ** (i / _PER_OCTAVE) for i in range(BINS + 1))
_MIDDLES = tuple((_EDGES[i] + _EDGES[i + 1]) / 2 for i in range(BINS))
_BINS = Struct(f"{BINS}d")
_TAILS = Struct(f"{BINS + 1}d")
"""Through these an array is filled as bytes, at a tenth of the time that it takes for each number by itself."""
_MEMORY = 512.0
"""Observations that count: older ones fade with exp(-age/512), so that a change of use shows within an hour."""
_SHRINK = 12.0
"""A group's parent counts as this many observations of its own."""
_REFRESH = 64
"""Answers between two refreshes, at most: an eighth of the memory, so tables never lag noticeably."""
_LIMIT_PRIOR = 0.05
"""Share of answers that run into their limit, before anything was learned."""
_SIGMA = 1.3
"""Spread (log) of the prior: lognormal lengths in public traces have 0.9 to 1.6."""
MAX_GROUPS = 2048
"""Groups (model, tenant, surface, limit) remembered, about 3 KiB each; the longest unused is forgotten."""


def _bin(tokens: float) -> int:
    return min(BINS - 1, int(_PER_OCTAVE * log2(tokens))) if tokens > 1.0 else 0


def limit_bucket(max_tokens: int | None) -> int:
    """Requests with limits in the same power of four share their history; 0: no limit given."""
    return 0 if max_tokens is None else min(10, 1 + ((max(1, max_tokens) - 1).bit_length() + 1) // 2)


class _Group:
    """Lengths of one group: a histogram that forgets, and tables over it and its parent, refreshed now and then.

    Answers that ran into their limit say only that they would have been longer. They are counted apart (`hits`), and
    the histogram holds those that ended by themselves.
    """

    __slots__ = (
        "below", "count", "density", "due", "hits", "increment", "limit_ratio", "mass", "tail", "tail_tokens",
        "weights",
    )  # fmt: skip

    def __init__(self) -> None:
        self.weights = array("d", bytes(8 * BINS))
        self.mass = 0.0
        self.hits = 0.0
        self.increment = 1.0
        self.count = 0
        self.due = 1
        self.density = array("d")
        """Probability of each bin."""
        self.below = array("d")
        """below[i]: probability of a length in bin i or below."""
        self.tail = array("d")
        """tail[i]: probability of a length in bin i or above; one entry more than bins."""
        self.tail_tokens = array("d")
        """tail_tokens[i]: sum of probability x tokens over bin i and above."""
        self.limit_ratio = _LIMIT_PRIOR

    def add(self, tokens: float, hit: bool) -> None:
        self.count += 1
        self.increment *= 1.0 + 1.0 / _MEMORY
        if self.increment > 1e6:
            scale = 1.0 / self.increment
            self.weights = array("d", [weight * scale for weight in self.weights])
            self.mass *= scale
            self.hits *= scale
            self.increment = 1.0
        if hit:
            self.hits += self.increment
        else:
            self.weights[_bin(tokens)] += self.increment
            self.mass += self.increment

    def refresh(self, parent: _Group) -> None:
        """Mix own history with the parent's tables, the latter worth `_SHRINK` observations."""
        self.due = self.count + max(1, min(_REFRESH, self.count // 8))
        shrink = _SHRINK * self.increment
        self.limit_ratio = (self.hits + shrink * parent.limit_ratio) / (self.hits + self.mass + shrink)
        norm = 1.0 / (self.mass + shrink)
        self.set_density([(w + shrink * p) * norm for w, p in zip(self.weights, parent.density, strict=True)])

    def set_density(self, density: list[float]) -> None:
        self.density = array("d", _BINS.pack(*density))
        self.below = array("d", _BINS.pack(*accumulate(density)))
        tail = [*accumulate(reversed(density), initial=0.0)]
        tail.reverse()
        self.tail = array("d", _TAILS.pack(*tail))
        tokens = map(mul, reversed(density), reversed(_MIDDLES))
        tail = [*accumulate(tokens, initial=0.0)]
        tail.reverse()
        self.tail_tokens = array("d", _TAILS.pack(*tail))

    def above(self, tokens: float) -> tuple[float, float]:
        """(probability of a length above `tokens`, sum of probability x length there), lengths uniform in a bin."""
        i = _bin(tokens)
        low, high = _EDGES[i], _EDGES[i + 1]
        at = max(low, min(high, tokens))
        part = self.density[i] * (high - at) / (high - low)
        return self.tail[i + 1] + part, self.tail_tokens[i + 1] + part * (at + high) * 0.5


def _prior(median: float) -> _Group:
    group = _Group()
    log_median = log(median)
    cdf = [0.5 * (1.0 + erf((log(edge) - log_median) / (_SIGMA * sqrt(2.0)))) for edge in _EDGES]
    density = [max(1e-9, cdf[i + 1] - cdf[i]) for i in range(BINS)]
    density[0] += cdf[0]
    total = sum(density)
    group.set_density([p / total for p in density])
    return group


class OutputLengths:
    """Learned distribution of output tokens per choice, by (model, tenant, surface, limit).

    A group with little history leans on (model, surface, limit), that on (surface), that on the prior of the settings.
    A request with `n` choices is `n` answers: ask and teach per choice.
    """

    __slots__ = ("_groups", "_models", "_prior", "_surfaces", "_within", "observations")

    def __init__(self, settings: CostSettings) -> None:
        self._prior = _prior(float(settings.output_tokens))
        self._surfaces: dict[str, _Group] = {}
        self._models: dict[tuple[str | None, str, int], _Group] = {}
        self._groups: dict[tuple[str | None, str, str, int], _Group] = {}
        self._within = 0.9
        self.observations = 0

    def quantile(self, model: str | None, tenant: str, surface: str, max_tokens: int | None, q: float) -> float:
        """Length that a share `q` of such answers does not exceed, in tokens; at most `max_tokens`."""
        group = self._find(model, tenant, surface, max_tokens)
        if max_tokens is None:
            return _quantile(group, q)
        own = 1.0 - group.limit_ratio
        if q >= own:
            return float(max_tokens)
        return min(float(max_tokens), _quantile(group, q / own))

    def remaining(
        self, model: str | None, tenant: str, surface: str, max_tokens: int | None, seen_tokens: float
    ) -> float:
        """Expected tokens still to come of an answer that has produced `seen_tokens` and goes on.

        E[min(X, limit) - seen | X > seen]: an answer past its median still has a remainder, and never more than
        its limit leaves.
        """
        group = self._find(model, tenant, surface, max_tokens)
        alive, tokens = group.above(seen_tokens)
        if max_tokens is None:
            return max(1.0, tokens / alive - seen_tokens) if alive > 1e-12 else _beyond(seen_tokens)
        left = max_tokens - seen_tokens
        if left <= 1.0:
            return max(0.0, left)
        longer, longer_tokens = group.above(max_tokens)
        hit = group.limit_ratio
        own = 1.0 - hit
        survival = own * alive + hit
        if survival <= 1e-12:
            return min(left, _beyond(seen_tokens))
        expected = (own * (tokens - longer_tokens + longer * max_tokens) + hit * max_tokens) / survival - seen_tokens
        return min(left, max(1.0, expected))

    def learn(self, model: str | None, tenant: str, surface: str, max_tokens: int | None, actual_tokens: float) -> None:
        """Take in the length of an answer that ended by itself or at its limit; never that of one cut short."""
        if not 0 <= actual_tokens < float("inf"):
            return
        within = actual_tokens <= self.quantile(model, tenant, surface, max_tokens, 0.9)
        self.observations += 1
        self._within += (within - self._within) * max(0.002, 1.0 / (self.observations + 10))
        hit = max_tokens is not None and actual_tokens >= max_tokens
        bucket = limit_bucket(max_tokens)
        top = self._surfaces.get(surface)
        if top is None:
            top = self._surfaces[surface] = _Group()
        middle = _recent(self._models, (model, surface, bucket))
        leaf = _recent(self._groups, (model, tenant, surface, bucket))
        parent = self._prior
        for group in (top, middle, leaf):
            group.add(actual_tokens, hit)
            if group.count >= group.due or not group.density:
                group.refresh(parent)
            parent = group

    @property
    def coverage(self) -> float:
        """Share of the last 500 or so answers that were no longer than their predicted 90 % quantile: 0.9 is right."""
        return self._within

    @property
    def groups(self) -> int:
        return len(self._groups)

    def _find(self, model: str | None, tenant: str, surface: str, max_tokens: int | None) -> _Group:
        bucket = 0 if max_tokens is None else limit_bucket(max_tokens)
        group = self._groups.get((model, tenant, surface, bucket))
        if group is not None:
            return group
        return self._models.get((model, surface, bucket)) or self._surfaces.get(surface) or self._prior


def _quantile(group: _Group, q: float) -> float:
    i = min(BINS - 1, bisect_left(group.below, q))
    share = group.density[i]
    part = 1.0 - (group.below[i] - q) / share if share > 0.0 else 1.0
    return _EDGES[i] + (_EDGES[i + 1] - _EDGES[i]) * max(0.0, min(1.0, part))


def _beyond(seen_tokens: float) -> float:
    """Past all that the tables cover: a tenth of what has come, as for any heavy tail."""
    return max(1.0, 0.1 * seen_tokens)


def _recent(groups: dict[Key, _Group], key: Key) -> _Group:
    group = groups.pop(key, None)
    if group is None:
        if len(groups) >= MAX_GROUPS:
            del groups[next(iter(groups))]
        group = _Group()
    groups[key] = group
    return group
