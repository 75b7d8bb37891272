"""Who of several controllers acts: an election over a lease, without I/O and without trust in wall clocks.

The lease is a record somewhere that is written only with a precondition on its version. Nobody reads anybody's clock:
a candidate takes over when the record has not changed for the lease's duration *since it saw it*; the holder stops
`fence_s` after *sending* its last renewal that succeeded. What the others saw came after that sending, so while clocks
run at nearly the same speed the holder has stopped at least `duration - fence` before anybody takes over. `now` should
come from a clock that goes on while the machine is suspended.

That leaves a holder that is frozen between its look at the clock and its write. Such a write must fail by itself: every
write to what is scaled carries the version of what it was decided on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autoscaler.policy.lease import LONGEST_LEASE_S, LeaseSettings


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """The lease as it is stored."""

    holder: str
    """Empty: given back."""
    duration_s: float
    transitions: int = 0
    """How often it has changed hands; the holder's term."""
    version: str | None = None
    """Opaque; changes with every write. None: not stored yet."""


@dataclass(frozen=True, slots=True)
class Write:
    """Store `record` if the stored version still is `record.version` (None: if there is none)."""

    record: LeaseRecord
    reason: str


class Election:
    """One candidate. Call `propose` at every wake-up, carry out what it says, and report with `stored`, `refused` or
    not at all (no answer: it may have been stored or not)."""

    def __init__(self, settings: LeaseSettings, identity: str) -> None:
        """`identity` names this process and no other, ever: it is how its own unconfirmed writes are recognised."""
        if not identity:
            raise ValueError("the identity of a candidate must not be empty: that is how a lease is given back")
        self._settings = settings
        self.identity = identity
        self._seen: LeaseRecord | None = None
        self._seen_at: float | None = None
        """When the present record, or its absence, was first seen. None: never looked."""
        self._last_term: int | None = None
        """Of the last holder that was seen. One whose record vanished may not have noticed yet."""
        self._current = False
        """`_seen` is what a write can build on; otherwise look first."""
        self._acts_until: float | None = None

    # ------------------------------------------------------------------ what follows from it

    def leads(self, now: float) -> bool:
        """Whether this candidate may act at this instant."""
        return self._acts_until is not None and now < self._acts_until

    def acts_until(self) -> float | None:
        """When it must have stopped, unless it renews; None: it does not lead."""
        return self._acts_until

    @property
    def term(self) -> int:
        """Which leadership this is, counted over all candidates; only meaningful while it leads."""
        return self._seen.transitions if self._seen is not None else 0

    @property
    def holder(self) -> str:
        """Who holds the lease as far as known; empty: nobody."""
        return self._seen.holder if self._seen is not None else ""

    # ------------------------------------------------------------------ what goes in

    def must_look(self) -> bool:
        """Whether the record must be read before anything can be proposed."""
        holds = self._seen is not None and self._seen.holder == self.identity
        return not (self._current and holds)

    def observe(self, record: LeaseRecord | None, now: float) -> None:
        """The record as it was read (None: there is none); `now` is the instant of the answer."""
        before = self._seen.version if self._seen is not None else None
        version = record.version if record is not None else None
        if self._seen_at is None or version != before:
            self._seen_at = now
        self._seen = record
        self._current = True
        if record is not None and record.holder:
            self._last_term = record.transitions
        if record is None or record.holder != self.identity:
            self._acts_until = None

    def stored(self, record: LeaseRecord, sent_at: float, now: float) -> None:
        """A proposed write succeeded; `record` is as it was stored, with its new version."""
        self.observe(record, now)
        if record.holder == self.identity:
            self._acts_until = sent_at + self._settings.fence_s

    def refused(self) -> None:
        """The precondition of a write failed: somebody else wrote, or an earlier unanswered write of ours landed."""
        self._current = False

    # ------------------------------------------------------------------ what comes out

    def propose(self, now: float) -> Write | None:
        """What to write now; None: nothing, look again at `wake_at`."""
        if not self._current or self._seen_at is None:
            return None
        seen, duration_s = self._seen, self._settings.duration_s
        if seen is not None and seen.holder == self.identity:
            return Write(replace(seen, duration_s=duration_s), "renewal")
        free_at = self._free_at()
        if now < free_at:
            return None
        if seen is None:
            term = 0 if self._last_term is None else self._last_term + 1
            return Write(LeaseRecord(self.identity, duration_s, term), "there is no lease")
        taken = LeaseRecord(self.identity, duration_s, seen.transitions + 1, seen.version)
        if not seen.holder:
            return Write(taken, "the lease was given back")
        return Write(taken, f"{seen.holder} has not renewed for {now - self._seen_at:.1f} s")

    def give_back(self) -> Write | None:
        """What lets another take over at once, for a holder that stops. It does not act from here on."""
        held = self._acts_until is not None
        self._acts_until = None
        if not held or self._seen is None or not self._current:
            return None
        return Write(replace(self._seen, holder="", duration_s=1.0), "stopping")

    def wake_at(self, now: float) -> float:
        """When to look, or to renew, next."""
        wake = now + self._settings.retry_s
        if self._current and self._seen_at is not None and self._free_at() > now:
            wake = min(wake, self._free_at())
        return wake

    def _free_at(self) -> float:
        """When whoever held it must have stopped."""
        assert self._seen_at is not None
        seen = self._seen
        if seen is None:
            return self._seen_at + (0.0 if self._last_term is None else self._settings.duration_s)
        if not seen.holder:
            return self._seen_at
        return self._seen_at + max(self._settings.duration_s, min(seen.duration_s, LONGEST_LEASE_S))
