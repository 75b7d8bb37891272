"""From what the sources want to what is done: up at once, down when all have agreed for long enough.

Sizes are in reference replicas; the limits on counts (min, max, step, rate) are applied to whole replicas.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, inf

from autoscaler.decide.recommender import Proposal
from autoscaler.policy.pools import DownSettings, PoolSettings

_DAY_S = 86_400.0
_MOST_HOLD = 8.0
SETTLE = 2.0
"""Median lead times after asking for more in which none is given back: one to be there, one to have been worth it. A
turn that comes sooner pays for a start and gets nothing."""
_LEAST_HOLD_S = 360.0
"""A minute more than the window of the Kubernetes autoscaler, which takes a tenth more actions for 1 % fewer GPU-hours
on the series of `make bench-scaling`."""
_HOLD_LEADS = 2.2
"""Median lead times for which all must have agreed before replicas go, where the policy says nothing: a little more
than the two within which a start takes back what a stop gave."""
_EDGE = 1e-9
"""Rounding of a size that was computed must not ask for a whole replica more."""


@dataclass(frozen=True, slots=True)
class Step:
    """A size, and what decided it."""

    desired: int
    binding: str
    """The source or limit that bound."""
    reason: str
    would_change: str
    """What would have led to another decision."""


class Stabilizer:
    """Remembers what was agreed to and what was done."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._agreed: deque[tuple[float, float, str]] = deque()
        """Decreasing maxima of what sources agree to within the hold time: (instant, size, source)."""
        self._ups: deque[tuple[float, int]] = deque()
        self._downs: deque[tuple[float, int]] = deque()
        self._reversals: deque[float] = deque()
        self._last_up = -inf
        self._last_down = -inf
        self._lowered_at = -inf
        self._settled_at = -inf
        """When what was asked for last has had its time."""
        self._lead_s = 0.0
        self._first: float | None = None

    @property
    def hold_s(self) -> float:
        """The hold time, longer after many reversals (flap guard)."""
        over = len(self._reversals) - self._settings.rate.reversals
        return usual_hold_s(self._settings.down, self._lead_s) * min(_MOST_HOLD, 2.0 ** max(0, over))

    def reversals(self, now: float) -> int:
        while self._reversals and self._reversals[0] < now - _DAY_S:
            self._reversals.popleft()
        return len(self._reversals)

    def step(
        self, proposals: Sequence[Proposal], supply: int, known: bool, consolidates: str, lead_s: float, now: float
    ) -> Step:
        """`supply`: replicas ready and starting. `known`: the fleet was observed whole. `consolidates`: why fewer
        replicas would miss the objective; empty: they would not. `lead_s`: median lead time."""
        self._lead_s = lead_s
        self.reversals(now)
        up = max(proposals, key=lambda one: one.want)
        silent = next((one for one in proposals if one.keep is None), None)
        agreed = max((one for one in proposals if one.keep is not None), key=lambda one: one.keep or 0.0, default=up)
        self._note(supply if silent else max(agreed.keep or 0.0, up.want), silent or agreed, now)
        want = max(0, ceil(up.want - _EDGE))
        if want > supply:
            further = floor(up.stride + 0.5)
            if further > want:
                up = replace(up, reason=f"{up.reason}; {further} rather than {want}, to save the next step")
            return self._up(max(want, further), up, supply, now)
        size, source = self._agreed[0][1], self._agreed[0][2]
        least = ceil(size - _EDGE)
        if supply > self._settings.max_replicas and known:
            return self._down(self._settings.max_replicas, "max", "max_replicas was lowered", supply, now)
        if least >= supply:
            why = silent.reason if silent else agreed.reason
            return Step(supply, source, why, f"fewer once {source} agrees for {self.hold_s:.0f} s")
        if silent is not None:
            return Step(supply, silent.source, silent.reason, f"fewer once {silent.source} can be judged again")
        if not known:
            return Step(supply, "fleet", "the fleet is not known whole", "fewer once every replica is seen")
        if self._agreed_since(now) < self.hold_s:
            return Step(supply, "hold", f"agreed for less than {self.hold_s:.0f} s", "fewer when the hold time is over")
        if now - self._lowered_at < self._settings.down.payback_s:
            return Step(supply, "payback", "the last removal was a moment ago", "fewer once it has paid back")
        if now < self._settled_at:
            return Step(supply, "payback", "what was asked for last has not paid back", "fewer once it has")
        if consolidates:
            return Step(supply, "objective", consolidates, "fewer at less load")
        return self._down(least, agreed.source, agreed.reason, supply, now)

    def _note(self, size: float, source: Proposal, now: float) -> None:
        agreed = self._agreed
        while agreed and agreed[-1][1] <= size:
            agreed.pop()
        agreed.append((now, size, source.source))
        if self._first is None:
            self._first = now
        hold_s = self.hold_s
        while agreed[0][0] < now - hold_s:
            agreed.popleft()

    def _agreed_since(self, now: float) -> float:
        """Seconds for which agreement has been recorded at all: after a start nothing is known of before."""
        return 0.0 if self._first is None else now - self._first

    def _up(self, want: int, up: Proposal, supply: int, now: float) -> Step:
        rate = self._settings.rate
        most = self._settings.max_replicas
        allowed = rate.up - _recent(self._ups, now - rate.window_s)
        desired, binding, reason = want, up.source, up.reason
        for bound, name in ((most, "max"), (supply + rate.up_step, "step"), (supply + max(0, allowed), "rate")):
            if desired > bound:
                desired, binding, reason = bound, name, f"{up.source} wants {want}: {up.reason}"
        desired = max(desired, supply)
        return Step(
            desired, binding, reason, f"more with a higher {binding}" if binding != up.source else "less demand"
        )

    def _down(self, floor: int, source: str, reason: str, supply: int, now: float) -> Step:
        settings = self._settings
        rate = settings.rate
        allowed = rate.down - _recent(self._downs, now - rate.window_s)
        desired, binding = floor, source
        for bound, name in (
            (min(settings.min_replicas, supply), "min"),
            (supply - rate.down_step, "step"),
            (supply - max(0, allowed), "rate"),
        ):
            if desired < bound:
                desired, binding = bound, name
        return Step(desired, binding, reason, f"less with another {binding}" if binding != source else "more demand")

    def done(self, change: int, lead_s: float, now: float) -> None:
        """The number of replicas is changed by this many. A turn within two lead times is a reversal."""
        if change < 0:
            self._lowered_at = now
        if change > 0:
            if now - self._last_down <= 2.0 * lead_s:
                self._reversals.append(now)
                self._last_down = -inf
            self._last_up = now
            self._settled_at = now + settle_s(self._settings.down.payback_s, lead_s)
            self._ups.append((now, change))
        elif change < 0:
            if now - self._last_up <= 2.0 * lead_s:
                self._reversals.append(now)
                self._last_up = -inf
            self._last_down = now
            self._downs.append((now, -change))


def usual_hold_s(down: DownSettings, lead_s: float) -> float:
    """Seconds for which all must have agreed before replicas go, for a median lead time."""
    return max(_LEAST_HOLD_S, _HOLD_LEADS * lead_s) if down.hold_s is None else down.hold_s


def settle_s(payback_s: float, lead_s: float) -> float:
    """Seconds after asking for more in which none is given back, for a median lead time; none where stops need not pay
    back."""
    return SETTLE * lead_s if payback_s > 0.0 else 0.0


def _recent(changes: deque[tuple[float, int]], since: float) -> int:
    while changes and changes[0][0] <= since:
        changes.popleft()
    return sum(count for _, count in changes)
