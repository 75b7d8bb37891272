"""From demand by model to what the controller reads: a pool's demand, and forecasts of it in its unit per second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autoscaler.decide.outlook import Outlook
from forecaster.quantiles import Forecast
from forecaster.series import Floats


def pooled(models: Sequence[Floats]) -> Floats:
    """The sum of what models were asked for in the same bins (arrays of one length); NaN: not known.

    Before a model was first seen and after it was last seen it had no demand. In between, a bin that was lost of one
    is lost of the pool: the others' demand would pass for all of it.
    """
    if not models:
        return np.empty(0)
    total = np.zeros(len(models[0]))
    known = np.zeros(len(total), np.bool_)
    for values in models:
        seen = np.flatnonzero(np.isfinite(values))
        if len(seen):
            span = slice(int(seen[0]), int(seen[-1]) + 1)
            # A bin that was lost makes the sum NaN, whatever is added.
            total[span] += values[span]
            known[span] = True
    return np.where(known, total, np.nan)


def outlook_of(made: Forecast, *, mono_s: float, wall_s: float) -> Outlook:
    """A forecast as the controller reads it. `mono_s` and `wall_s` are readings of both clocks at one instant: later
    steps of the wall clock do not move it. A bin's forecast stands for the bin's middle."""
    rows: dict[float, tuple[float, ...]] = {}
    for horizon_s, row in zip(made.horizons_s, made.values, strict=True):
        bins = max(1, -int(-horizon_s // made.step_s))
        rows[(bins - 0.5) * made.step_s] = tuple(value / made.step_s for value in row)
    return Outlook(
        mono_s - (wall_s - made.made_at_s),
        tuple(rows),
        made.quantiles,
        tuple(rows.values()),
        made.trusted,
        made.trust_reason,
        made.model,
    )


def aged(outlook: Outlook, now: float, stale_s: float, why: str) -> Outlook:
    """The same, not trusted once its data are older than `stale_s` at the monotonic instant `now`; `why` there is no
    newer one, if that is known."""
    age_s = now - outlook.made_at
    if age_s <= stale_s:
        return outlook
    reason = f"the newest data are {age_s:.0f} s old" + (f": {why}" if why else "")
    return replace(outlook, trusted=False, reason=reason)


def nothing(reason: str, now: float) -> Outlook:
    """No forecast, and why: it says nothing of demand, may not act, and tells people what is missing."""
    return Outlook(now, (), (), (), trusted=False, reason=reason, model="none")
