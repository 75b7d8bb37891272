"""From a request to a replica: candidates, filters, then the picker."""

from __future__ import annotations

import random
from math import inf

from lb.effects import Ticket
from lb.ledger import Entry
from lb.replica import Replica
from lb.request import PREFIX_BLOCK_BYTES, RequestInfo
from lb.roster import Roster
from lb.routing.filters import FILTERS
from lb.routing.form import overlap
from lb.routing.pickers import PICKERS
from lb.routing.prefix_index import PrefixIndex
from lb.routing.scorers.prefix_affinity import cached_tokens
from lb.routing.sessions import Sessions
from lb.routing.weighing import Weighing
from lb.settings import RoutingSettings

FEW = 8
"""Candidates that a decision looks at where there are more replicas than the shortlist. Over 120 replicas this costs
0.1 to 4 % of what a scan would choose, and a microsecond less for each fewer; holders of the prompt's beginning come on
top."""
HOLDERS = 4
"""Prefix holders that are looked at on top of those, the longest matches first."""
_BLOCK_TOKENS = PREFIX_BLOCK_BYTES / 4.0
"""Tokens in a prefix block where the prompt's own ratio is not known."""
_ALWAYS = tuple(one for one in FILTERS.values() if one.always)
_TRIED = tuple(one for one in FILTERS.values() if not one.always)
_TYPICAL_STEP = 0.02
"""Weight of one request in the mean request, whose cost keeps large pools in order."""
_UNUSUAL = 4.0
"""A prompt this many times the mean gets a scan of all replicas: what is best for the usual request says little about
it, a mistake costs seconds, and there are few."""
_TYPICAL_DRIFT = 1.5
"""Change of the mean request that is worth putting a large pool in order anew."""


class Router:
    """Owns what routing remembers: the prefix index, sessions, and the weighted shapes of replicas."""

    __slots__ = (
        "_changed",
        "_mean_output",
        "_mean_prompt",
        "_picker",
        "_rng",
        "_typical_output",
        "_typical_prompt",
        "prefixes",
        "sessions",
        "weighing",
    )

    def __init__(self, settings: RoutingSettings, rng: random.Random, changed: list[Replica]) -> None:
        self._rng = rng
        self._changed = changed
        self.prefixes = PrefixIndex(settings.prefix_index_blocks)
        self.sessions = Sessions(settings.session_ttl_s)
        self._mean_prompt = self._typical_prompt = 512.0
        self._mean_output = self._typical_output = 256.0
        self.configure(settings)

    def configure(self, settings: RoutingSettings) -> None:
        """New weights and strategy; what was learned stays."""
        self.weighing = Weighing(settings)
        self._picker = PICKERS[settings.strategy]
        self.sessions.ttl_s = settings.session_ttl_s

    def choose(self, ticket: Ticket, entry: Entry, now: float, *, tried_too: bool = False) -> Replica | None:
        """The replica for a request, or None if none of its pool has room (or is left untried)."""
        if self._changed:
            self._renew(now)
        info = ticket.info
        roster = entry.pool.roster
        if self._picker.scores:
            self._recall(entry, info, now)
        candidates = roster.ready if roster.order is None else self._shortlist(roster, entry)
        kept = self._filter(candidates, ticket, tried_too)
        if not kept:
            if roster.order is None:
                return None
            kept = self._filter(roster.ready, ticket, tried_too)
            if not kept:
                return None
        if len(kept) == 1:
            return kept[0]
        return self._picker.pick(kept, entry, info, roster, self.weighing, self._rng, now)

    def commit(self, replica: Replica, entry: Entry, info: RequestInfo, now: float) -> None:
        """`replica` takes the request: fix what it will compute, and remember where prompt and session went."""
        if info.prefix:
            if entry.depths:
                entry.cached = cached_tokens(replica, entry)
                entry.uncached = entry.prompt - entry.cached
                entry.quad = entry.prompt * entry.prompt - entry.cached * entry.cached
            self.prefixes.note(replica.index, info.prefix)
        if info.session is not None:
            self.sessions.note(info.session, replica, now)
        entry.predicted_s = self.predict_s(replica, entry, now)

    def predict_s(self, replica: Replica, entry: Entry, now: float) -> float:
        """Seconds from now to the end of the answer on `replica`, as far as it depends on what is known."""
        pace = replica.pace
        shape = replica.shape
        wait = replica.free_at - now
        shared = overlap(shape[6], shape[7], entry.output)
        return (
            (max(0.0, wait))
            + pace.prefill_s
            + pace.token_s * entry.uncached
            + pace.token2_s * entry.quad
            + (pace.step_s + pace.running_s) * entry.output
            + pace.running_s * shared
        )

    @staticmethod
    def first_byte_s(replica: Replica, entry: Entry) -> float:
        """Predicted time to first token of a request that was sent to `replica`."""
        pace = replica.pace
        return entry.ahead_s + pace.prefill_s + pace.token_s * entry.uncached + pace.token2_s * entry.quad

    def settle(self, replica: Replica) -> None:
        """What others observe of `replica` has changed."""
        replica.settled = False
        if not replica.dirty:
            replica.dirty = True
            self._changed.append(replica)

    def forget(self, replica: Replica) -> None:
        """Its caches are gone."""
        self.prefixes.forget(replica.index)

    def _recall(self, entry: Entry, info: RequestInfo, now: float) -> None:
        """Look up where the beginning of the prompt and the session were last."""
        if info.prefix and self.weighing.weights["prefix_affinity"] > 0.0:
            entry.depths = self.prefixes.match(info.prefix)
            if entry.depths:
                sized = info.prompt_bytes >= PREFIX_BLOCK_BYTES
                entry.block_tokens = entry.prompt * PREFIX_BLOCK_BYTES / info.prompt_bytes if sized else _BLOCK_TOKENS
        if info.session is not None:
            entry.session = self.sessions.find(info.session, now)

    def _renew(self, now: float) -> None:
        for replica in self._changed:
            replica.dirty = False
            self.weighing.renew(replica, now)
            for roster in replica.rosters:
                if roster.order is not None:
                    self._rank(replica)
                    break
        self._changed.clear()

    def _rank(self, replica: Replica) -> None:
        """Its place in the order of large pools: the cost of a typical request by the ledger, without the clock."""
        previous = replica.order_key
        if replica.in_flight < replica.limit and (replica.kv_left > 0.0 or not replica.in_flight):
            a, b, c, d, e, _, batch, left = replica.shape
            prompt, output = self._typical_prompt, self._typical_output
            ahead = replica.waiting_tokens * replica.pace.token_s * self.weighing.wait_weight
            key = ahead + a + b * prompt + c * prompt * prompt + d * output + e * overlap(batch, left, output)
        else:
            key = inf
        if key != previous:
            replica.order_key = key
            for roster in replica.rosters:
                if roster.order is not None:
                    roster.order.move(replica, previous)

    def _shortlist(self, roster: Roster, entry: Entry) -> list[Replica]:
        assert roster.order is not None
        self._usual(entry, roster)
        if entry.prompt > _UNUSUAL * self._mean_prompt:
            return roster.ready
        few = roster.order.best(FEW)
        session = entry.session
        if session is not None and session not in few and session in roster.ready:
            few.append(session)
        if entry.depths:
            few.extend(_holders(roster, entry, few))
        return few

    def _usual(self, entry: Entry, roster: Roster) -> None:
        """Follow what requests are like; a clear change puts the pool in a new order. In between the yardstick stays,
        as keys that were taken with different ones cannot be compared."""
        self._mean_prompt += (entry.prompt - self._mean_prompt) * _TYPICAL_STEP
        self._mean_output += (entry.output - self._mean_output) * _TYPICAL_STEP
        far = _TYPICAL_DRIFT
        if not (
            self._typical_prompt / far <= self._mean_prompt <= self._typical_prompt * far
            and self._typical_output / far <= self._mean_output <= self._typical_output * far
        ):
            self._typical_prompt = max(1.0, self._mean_prompt)
            self._typical_output = max(1.0, self._mean_output)
            for replica in roster.ready:
                self._rank(replica)

    @staticmethod
    def _filter(candidates: list[Replica], ticket: Ticket, tried_too: bool) -> list[Replica]:
        for one in _ALWAYS:
            candidates = one.keep(candidates, ticket)
        if ticket.excluded and not tried_too:
            for one in _TRIED:
                candidates = one.keep(candidates, ticket)
        return candidates


def _holders(roster: Roster, entry: Entry, known: list[Replica]) -> list[Replica]:
    """Ready replicas of the pool that hold the longest beginnings of the prompt."""
    seen = 0
    for replica in known:
        seen |= 1 << replica.index
    found: list[Replica] = []
    by_index = roster.by_index
    for mask, _ in entry.depths:
        new = mask & ~seen & roster.ready_mask
        while new and len(found) < HOLDERS:
            bit = new & -new
            new ^= bit
            seen |= bit
            found.append(by_index[bit.bit_length() - 1])
        if len(found) >= HOLDERS:
            break
    return found
