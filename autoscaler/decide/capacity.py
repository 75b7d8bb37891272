"""How much demand one replica serves under the objective, learned from what is observed.

Two observations bound it. A saturated pool (requests wait, nobody is starting work elsewhere) serves what it can: its
rate per ready replica is the capacity. A pool that served more than that without a miss has more. The prior comes from
the policy, or from the balancer's model of the replicas' speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

_SATURATED = 0.97
"""Share of a saturated replica's rate that it serves with one request in a hundred late: with tens of slots the number
of busy ones scatters by a few percent, and that much room is needed."""
_SETTLE_S = 180.0
"""After the number of ready replicas changed, rates over a minute mix old and new fleets, and batches refill."""
_FADE_S = 6 * 3600.0
"""Half-life of learned saturation, so that another mix of requests or a driver update shows within a day."""
_LARGEST = 1e12


class Capacity:
    """Units of demand per second and reference replica (speed 1)."""

    def __init__(self, prior: float | None, confidence_min: float) -> None:
        self._configured = prior
        self._confidence_min = confidence_min
        self._hint: float | None = None
        self._sum = 0.0
        self._weight_min = 0.0
        """Minutes of saturation, faded."""
        self._proven = 0.0
        """Highest rate served without misses over whole settle times, faded."""
        self._run: list[float] = []
        self._at: float | None = None
        self._ready = -1.0
        self._settled_at = 0.0

    @property
    def per_replica(self) -> float | None:
        """None: nothing known yet."""
        prior = self._configured if self._configured is not None else self._hint
        if prior is None and not self._weight_min:
            return self._proven or None
        total = self._weight_min + (self._confidence_min if prior is not None else 0.0)
        if not total:
            return max(prior or 0.0, self._proven) or None
        mean = (self._sum + (prior or 0.0) * (self._confidence_min if prior is not None else 0.0)) / total
        return max(mean, self._proven) or None

    @property
    def evidence_min(self) -> float:
        """Minutes of saturation that it rests on."""
        return self._weight_min

    def hint(self, speed_per_s: float | None) -> None:
        """What the balancer's speed model says; used where the policy says nothing."""
        if speed_per_s is not None and isfinite(speed_per_s) and 0.0 < speed_per_s < _LARGEST:
            self._hint = speed_per_s

    def observe(
        self, served_per_s: float | None, ready: float, queued: float | None, missed: bool | None, now: float
    ) -> None:
        """One tick: what `ready` reference replicas serve, how many wait, whether any request missed lately."""
        passed = 0.0 if self._at is None else min(60.0, max(0.0, now - self._at))
        self._at = now
        fade = 0.5 ** (passed / _FADE_S)
        self._sum *= fade
        self._weight_min *= fade
        self._proven *= fade
        if ready != self._ready:
            self._ready = ready
            self._settled_at = now + _SETTLE_S
            self._run.clear()
        if served_per_s is None or queued is None or ready <= 0 or now < self._settled_at or not passed:
            return
        rate = served_per_s / ready
        if not 0.0 <= rate < _LARGEST:
            return
        if queued >= ready:
            self._sum += _SATURATED * rate * passed / 60.0
            self._weight_min += passed / 60.0
            self._run.clear()
        elif missed is False:
            self._run.append(rate)
            if len(self._run) * passed >= _SETTLE_S:
                self._proven = max(self._proven, min(self._run))
                self._run.clear()
        else:
            self._run.clear()

    def state(self) -> dict[str, object]:
        """What a restart must not forget; JSON."""
        return {"sum": self._sum, "weight_min": self._weight_min, "proven": self._proven}

    def restore(self, state: Mapping[str, object]) -> None:
        values = [state.get(name) for name in ("sum", "weight_min", "proven")]
        numbers = [float(one) for one in values if isinstance(one, int | float) and isfinite(one) and one >= 0.0]
        if len(numbers) == len(values):
            self._sum, self._weight_min, self._proven = numbers
