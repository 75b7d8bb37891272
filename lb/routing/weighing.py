"""The weights of a policy, resolved once: which scorers and preferences act, and what they add up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lb.errors import SettingsError
from lb.ledger import Entry, decay
from lb.replica import Replica
from lb.request import RequestInfo
from lb.routing.form import NO_FORM, Form, KeptForm, add
from lb.routing.scorer import Preference, Scorer
from lb.routing.scorers import FIRST_TOKEN, PREFERENCES, SCORERS, WEIGHTS
from lb.settings import RoutingSettings

FOREIGN_TOKENS = 128.0
"""Output tokens that a request of others has left, while we have none there to compare with."""

Weighted = tuple[float, float, Scorer]
"""(weight of what comes before the first token, weight of the rest, scorer)"""


class Weighing:
    """Keeps each replica's weighted shape, and applies preferences.

    Raises SettingsError for a weight whose name no scorer has.
    """

    __slots__ = ("_live", "_standing", "names", "preferences", "settings", "wait_weight", "weights")

    def __init__(self, settings: RoutingSettings) -> None:
        self.settings = settings
        unknown = sorted(settings.weights.keys() - WEIGHTS.keys())
        if unknown:
            raise SettingsError(f"lb.routing.weights.{unknown[0]} is not a scorer; there are {', '.join(WEIGHTS)}")
        weights = {**WEIGHTS, **settings.weights}
        if not settings.prefix_affinity:
            weights["prefix_affinity"] = 0.0
        self.weights: Mapping[str, float] = weights
        early = 1.0 + weights[FIRST_TOKEN]
        acting = [(name, one, weights[name]) for name, one in SCORERS.items() if weights[name] > 0.0]
        self._live: Sequence[Weighted] = [(w * early if one.own else w, w, one) for _, one, w in acting if one.live]
        self._standing: Sequence[Weighted] = [
            (w * early if one.own else w, w, one) for _, one, w in acting if not one.live
        ]
        self.names: tuple[tuple[str, ...], tuple[str, ...]] = (
            tuple(name for name, one, _ in acting if one.live),
            tuple(name for name, one, _ in acting if not one.live),
        )
        """Names of the live and of the standing scorers, in the order of the forms on a replica."""
        self.preferences: Sequence[tuple[str, float, Preference]] = [
            (name, weights[name] * early if one.own else weights[name], one)
            for name, one in PREFERENCES.items()
            if weights[name] > 0.0
        ]
        self.wait_weight = weights["predicted_work"] * early

    def settle(self, replica: Replica, now: float) -> None:
        """Renew the forms that change with observations and time."""
        forms = tuple(scorer.form(replica, self.settings, now) for _, _, scorer in self._standing)
        total: Form = NO_FORM
        for form, (early, late, _) in zip(forms, self._standing, strict=True):
            if form is not NO_FORM:
                total = add(total, form, early, late)
        replica.settled = True
        replica.standing = forms
        replica.standing_sum = total

    def renew(self, replica: Replica, now: float) -> None:
        """Renew the shape after a request was sent, moved on or ended."""
        own = replica.in_flight
        if not replica.settled:
            self.settle(replica, now)
        if replica.unary or replica.abandoned:
            decay(replica, now)
        else:
            replica.decayed_at = now
        a, b, c, d, e, f = replica.standing_sum
        forms: list[KeptForm] = []
        settings = self.settings
        for early, late, scorer in self._live:
            form = scorer.form(replica, settings, now)
            forms.append(KeptForm(form))
            p, q, r, s, t, u = form
            a += early * p
            b += early * q
            c += early * r
            d += late * s
            e += late * t
            f += late * u
        replica.live = forms
        batch = own + replica.foreign + len(replica.abandoned)
        left = replica.stream_tokens + replica.unary_tokens
        if batch > own:
            # Requests that we did not send are taken to be like ours, or halfway through a default answer.
            left += (batch - own) * (left / own if own else FOREIGN_TOKENS)
        replica.shape = (a, b, c, d, e, f, batch, left)
        replica.seen = None

    def concerned(self, entry: Entry, info: RequestInfo) -> list[tuple[str, float, Preference]]:
        return [item for item in self.preferences if item[2].concerns(entry, info)]
