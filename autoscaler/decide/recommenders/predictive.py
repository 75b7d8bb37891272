"""Capacity for the demand that comes while a replica starts, with the margin that the objective takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import exp
from statistics import NormalDist

from autoscaler.decide.contest import INERTIA, Bounds, Contest, lag, slack, stride
from autoscaler.decide.correction import Correction
from autoscaler.decide.observation import Quality
from autoscaler.decide.outlook import Outlook
from autoscaler.decide.predictor import Expectation
from autoscaler.decide.predictors import PREDICTORS
from autoscaler.decide.predictors.growth import Growth
from autoscaler.decide.recommender import Proposal, Situation
from autoscaler.decide.stabilize import settle_s, usual_hold_s
from autoscaler.policy.pools import PoolSettings

_NORMAL = NormalDist()
_AIM = 0.85
"""Share of the objective's misses to aim at: misses come in bursts, and a week's sum scatters by that much."""
_FORESEEING = ("forecast", "growth")
"""Predictions that need a forecast: its quantiles as they are, and its growth from the present level."""
_DAY_S = 86_400.0
_LEAST_INERTIA_S, _USUAL_INERTIA_S, _MOST_INERTIA_S = 15.0, 200.0, 300.0
_IDLE = 0.05
"""Replicas below which an expectation is that nothing comes: predictions of no demand are small and never zero."""
_RETURN_S = 300.0
"""A replica that is stopped and not wanted again for so long beyond a lead time has paid back its stop: drain and start
are billed for about as long."""
_STEPS = 5
"""Points at which a forecast is looked at between now and the end of the payback time."""


class OutlookView:
    """A forecast at the horizons that matter now."""

    def __init__(self, outlook: Outlook, now: float, ahead_s: tuple[float, ...]) -> None:
        self._outlook, self._now, self._ahead_s = outlook, now, ahead_s

    def level(self, z: float) -> float:
        quantile = min(0.9995, max(0.0005, _NORMAL.cdf(z)))
        return max(self._outlook.at(ahead, quantile, self._now) for ahead in self._ahead_s)


class Predictive:
    """Learns which prediction is worth its money (`decide.contest`), and by how much reality disagrees."""

    def __init__(self, settings: PoolSettings) -> None:
        names = (*PREDICTORS, *_FORESEEING)
        self._predictors = {name: make() for name, make in PREDICTORS.items()}
        self._growth = Growth()
        self.contest = Contest(names, settings.predictive.memory_s)
        self.correction = Correction()
        self._daily: deque[tuple[float, float]] = deque()
        """Decreasing maxima of demand over a day."""
        self.used = ""
        self.band: tuple[float, float, float] | None = None
        """Demand expected at the lead time: middle, what is provisioned for, and the cap."""
        self.score = 0.0

    def propose(self, situation: Situation) -> Proposal:
        settings, now = situation.settings, situation.now
        rate, unit = situation.reading.units_per_s, situation.per_replica
        self.band = None
        if not settings.predictive.enabled:
            return Proposal("predictive", 0.0, 0.0, "turned off")
        if unit is None:
            return Proposal("predictive", 0.0, None, "the capacity of a replica is not known yet")
        outlook = situation.outlook
        usable = outlook is not None and outlook.valid() and outlook.reach(now) > 0.0
        if rate is None:
            return self._blind(situation, unit, outlook if usable else None)
        ahead = (situation.lead.p50_s, situation.lead.p95_s)
        expected = self._expect(rate, now, ahead, outlook if usable else None)
        bounds = _bounds(situation)
        self.contest.observe(rate, unit, expected, _AIM * situation.objective, now, bounds)
        self.correction.observe(situation.reading, _AIM * situation.objective, now)
        self.contest.compare(self.used, self.score, self.correction.share, self.correction.came)
        return self._answer(situation, rate, unit, expected, outlook if usable else None)

    def _answer(
        self,
        situation: Situation,
        rate: float,
        unit: float,
        expected: Mapping[str, Expectation],
        outlook: Outlook | None,
    ) -> Proposal:
        settings = situation.settings
        name = self.contest.chosen if self.contest.chosen in expected else "last_value"
        if name in _FORESEEING and outlook is not None and not outlook.trusted:
            name = "momentum"
        expectation = expected.get(name) or expected["last_value"]
        self.used = name
        fixed = settings.predictive.quantile
        self.score = self.contest.score(name) + self.correction.offset if fixed is None else _NORMAL.inv_cdf(fixed)
        level = expectation.level(self.score)
        cap = settings.predictive.growth * self._daily[0][1]
        level = min(level, cap)
        self.band = (expectation.level(0.0), level, cap)
        want = level / unit
        keep = want
        if name in _FORESEEING and outlook is not None:
            keep = max(keep, min(cap, self._later(outlook, situation)) / unit)
        if settings.min_replicas == 0 and rate <= 0.0 and keep < _IDLE:
            return Proposal("predictive", 0.0, 0.0, f"no requests now, and none expected by {name}")
        reason = f"{level:.3g}/s expected in {situation.lead.p95_s:.0f} s by {name}, now {rate:.3g}/s"
        return Proposal("predictive", want - lag(want), keep + slack(keep), reason, min(stride(want), cap / unit))

    def _later(self, outlook: Outlook, situation: Situation) -> float:
        """Middle of the forecast until a replica stopped now would have paid back its stop: above it, keep."""
        down = situation.settings.down
        span_s = min(outlook.reach(situation.now), situation.lead.p95_s + min(down.payback_s, _RETURN_S))
        return max(outlook.at(span_s * step / _STEPS, 0.5, situation.now) for step in range(1, _STEPS + 1))

    def _expect(
        self, rate: float, now: float, ahead: tuple[float, float], outlook: Outlook | None
    ) -> dict[str, Expectation]:
        while self._daily and self._daily[-1][1] <= rate:
            self._daily.pop()
        self._daily.append((now, rate))
        while self._daily[0][0] < now - _DAY_S:
            self._daily.popleft()
        expected: dict[str, Expectation] = {}
        for name, predictor in self._predictors.items():
            predictor.observe(rate, now)
            expectation = predictor.expect(now, ahead[0])
            if expectation is not None:
                expected[name] = expectation
        self._growth.observe(rate, now)
        if outlook is not None:
            expected["forecast"] = OutlookView(outlook, now, ahead)
            growing = self._growth.expect(now, ahead[0], outlook)
            if growing is not None:
                expected["growth"] = growing
        return expected

    def _blind(self, situation: Situation, unit: float, outlook: Outlook | None) -> Proposal:
        """Demand is not known. A trusted forecast may still raise; nothing may lower."""
        why = next((str(q) for name, q in situation.reading.bad.items() if name.endswith("_per_s")), Quality.MISSING)
        if outlook is None or not outlook.trusted or not self._daily:
            return Proposal("predictive", 0.0, None, f"demand is {why}")
        view = OutlookView(outlook, situation.now, (situation.lead.p50_s, situation.lead.p95_s))
        level = min(
            view.level(self.contest.score("forecast")), situation.settings.predictive.growth * self._daily[0][1]
        )
        return Proposal("predictive", level / unit, None, f"demand is {why}; the forecast says {level:.3g}/s")

    def recall(self, rates: list[tuple[float, float]], situation: Situation, outlooks: Mapping[float, Outlook]) -> None:
        """Live through the past on paper: (monotonic instant, demand) in order, and what was forecast when."""
        unit = situation.per_replica
        if unit is None:
            return
        bounds = _bounds(situation)
        ahead = (situation.lead.p50_s, situation.lead.p95_s)
        outlook: Outlook | None = None
        for at, rate in rates:
            outlook = outlooks.get(at, outlook)
            usable = outlook is not None and outlook.reach(at) > 0.0
            expected = self._expect(rate, at, ahead, outlook if usable else None)
            self.contest.observe(rate, unit, expected, _AIM * situation.objective, at, bounds)

    def state(self) -> dict[str, object]:
        return {"contest": self.contest.state(), "offset": self.correction.offset}

    def restore(self, state: Mapping[str, object]) -> None:
        contest, offset = state.get("contest"), state.get("offset")
        if isinstance(contest, Mapping):
            self.contest.restore(contest)
        if isinstance(offset, int | float):
            self.correction.restore(float(offset))


def _inertia_s(situation: Situation) -> float:
    """From the mean time that an answer takes, by Little's law."""
    running, served = situation.reading.get("in_flight"), situation.reading.get("served_per_s")
    if running is None or not served:
        return _USUAL_INERTIA_S
    return min(_MOST_INERTIA_S, max(_LEAST_INERTIA_S, INERTIA * running / served))


def _bounds(situation: Situation) -> Bounds:
    """What shadow pools share with the real one; starts take the mean of the lognormal."""
    settings, lead = situation.settings, situation.lead
    return Bounds(
        least=settings.min_replicas,
        most=settings.max_replicas,
        hold_s=usual_hold_s(settings.down, lead.p50_s),
        payback_s=settings.down.payback_s,
        lead_s=min(exp(lead.mu + 0.5 * lead.sigma**2), lead.p95_s),
        inertia_s=_inertia_s(situation),
        settle_s=settle_s(settings.down.payback_s, lead.p50_s),
        objective=min(0.5, max(1e-4, settings.objective.misses)),
    )
