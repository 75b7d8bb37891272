"""The election as values: who may act when, whatever is lost, late or frozen."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from autoscaler.leader import Election, LeaseRecord
from autoscaler.policy.lease import LeaseSettings

SETTINGS = LeaseSettings()


def stored(record: LeaseRecord, version: str) -> LeaseRecord:
    return replace(record, version=version)


def leader(now: float = 100.0) -> Election:
    election = Election(SETTINGS, "a")
    election.observe(None, now)
    write = election.propose(now)
    assert write is not None
    election.stored(stored(write.record, "1"), now, now)
    return election


def test_the_first_candidate_creates_the_lease_and_leads() -> None:
    election = leader()
    assert election.leads(100.0)
    assert election.holder == "a"


def test_nothing_is_proposed_before_the_record_was_read() -> None:
    assert Election(SETTINGS, "a").propose(0.0) is None


def test_the_holder_stops_acting_when_it_cannot_renew_and_before_anybody_may_take_over() -> None:
    election = leader(100.0)
    assert election.leads(109.999)
    assert not election.leads(110.0)


def test_the_fence_counts_from_the_sending_of_a_renewal_not_from_its_answer() -> None:
    election = leader(100.0)
    write = election.propose(102.0)
    assert write is not None
    election.stored(stored(write.record, "2"), sent_at=102.0, now=106.0)
    assert election.acts_until() == 112.0


def test_a_candidate_waits_a_whole_duration_from_when_it_saw_the_record() -> None:
    election = Election(SETTINGS, "b")
    election.observe(LeaseRecord("a", 15.0, 3, "9"), 50.0)
    assert election.propose(64.9) is None
    assert election.wake_at(64.0) == 65.0
    write = election.propose(65.0)
    assert write is not None
    assert (write.record.holder, write.record.transitions, write.record.version) == ("b", 4, "9")


def test_every_change_of_the_record_starts_the_wait_anew() -> None:
    election = Election(SETTINGS, "b")
    election.observe(LeaseRecord("a", 15.0, 0, "1"), 0.0)
    election.observe(LeaseRecord("a", 15.0, 0, "2"), 14.0)
    assert election.propose(28.0) is None
    assert election.propose(29.0) is not None


def test_an_unchanged_record_does_not() -> None:
    election = Election(SETTINGS, "b")
    election.observe(LeaseRecord("a", 15.0, 0, "1"), 0.0)
    election.observe(LeaseRecord("a", 15.0, 0, "1"), 14.0)
    assert election.propose(15.0) is not None


def test_a_lease_that_was_given_back_is_taken_at_once() -> None:
    holder, other = leader(100.0), Election(SETTINGS, "b")
    write = holder.give_back()
    assert write is not None
    assert not holder.leads(100.0)
    other.observe(stored(write.record, "2"), 101.0)
    taken = other.propose(101.0)
    assert taken is not None
    assert taken.record.transitions == 1


def test_a_lease_that_vanished_is_not_taken_while_its_holder_may_still_act() -> None:
    election = Election(SETTINGS, "b")
    election.observe(LeaseRecord("a", 15.0, 7, "1"), 0.0)
    election.observe(None, 5.0)
    assert election.propose(19.0) is None
    write = election.propose(20.0)
    assert write is not None
    assert (write.record.version, write.record.transitions) == (None, 8)


def test_a_holder_whose_lease_vanished_stops_at_once() -> None:
    election = leader(100.0)
    election.refused()
    assert election.must_look()
    election.observe(None, 101.0)
    assert not election.leads(101.0)


def test_a_refused_write_is_followed_by_a_look_and_an_unanswered_one_that_landed_is_recognised() -> None:
    election = Election(SETTINGS, "b")
    election.observe(LeaseRecord("a", 15.0, 0, "1"), 0.0)
    write = election.propose(15.0)
    assert write is not None
    election.refused()
    assert election.propose(16.0) is None
    election.observe(stored(write.record, "2"), 16.0)
    assert not election.leads(16.0)
    renewal = election.propose(16.0)
    assert renewal is not None
    assert renewal.reason == "renewal"


def test_a_record_that_claims_years_does_not_lock_everybody_out() -> None:
    election = Election(SETTINGS, "b")
    election.observe(LeaseRecord("somebody", 1e9, 0, "1"), 0.0)
    assert election.propose(60.0) is not None


@pytest.mark.parametrize("bad", [{"fence_s": 15.0}, {"fence_s": 3.0}, {"duration_s": 10.5}, {"duration_s": 90.0}])
def test_settings_that_cannot_be_safe_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        LeaseSettings(**bad)


@dataclass
class Store:
    """A lease with versions."""

    record: LeaseRecord | None = None
    writes: int = 0

    def write(self, record: LeaseRecord) -> LeaseRecord | None:
        present = self.record.version if self.record is not None else None
        if record.version != present:
            return None
        self.writes += 1
        self.record = replace(record, version=str(self.writes))
        return self.record


class World:
    """Candidates that freeze, lose their calls, get answers late and run on clocks of different speeds."""

    def __init__(self, seed: int, candidates: int) -> None:
        self.rng = random.Random(seed)
        self.store = Store()
        self.candidates = [Election(SETTINGS, f"c{index}") for index in range(candidates)]
        # An hour apart and up to 0.1 % fast or slow: a hundred times what clocks of machines are.
        self.clocks = [(self.rng.uniform(-3600, 3600), 1.0 + self.rng.uniform(-0.001, 0.001)) for _ in self.candidates]
        self.frozen_until = [0.0] * candidates
        self.cut_until = [0.0] * candidates
        self.events: list[tuple[float, int, int, str, object]] = []
        self.count = 0
        self.terms: list[int] = []
        for index in range(candidates):
            self.at(self.rng.uniform(0, 3), index, "round")

    def at(self, time: float, index: int, what: str, value: object = None) -> None:
        self.count += 1
        heapq.heappush(self.events, (time, self.count, index, what, value))

    def clock(self, index: int, time: float) -> float:
        offset, speed = self.clocks[index]
        return offset + time * speed

    def run(self, until: float) -> None:
        while self.events and self.events[0][0] < until:
            time, _, index, what, value = heapq.heappop(self.events)
            if time < self.frozen_until[index]:
                self.at(self.frozen_until[index], index, what, value)
                continue
            getattr(self, f"do_{what}")(time, index, value)
            self.check(time)

    def check(self, time: float) -> None:
        leading = [index for index, one in enumerate(self.candidates) if one.leads(self.clock(index, time))]
        assert len(leading) <= 1, f"at {time}: {leading}"
        if leading:
            term = self.candidates[leading[0]].term
            assert not self.terms or term >= self.terms[-1]
            self.terms.append(term)

    def latency(self) -> float:
        return self.rng.choice([0.001, 0.01, 0.5, 3.9])

    def do_round(self, time: float, index: int, _: object) -> None:
        rng, election = self.rng, self.candidates[index]
        if rng.random() < 0.02:
            self.frozen_until[index] = time + rng.uniform(1, 60)
        if rng.random() < 0.02:
            self.cut_until[index] = time + rng.uniform(1, 60)
        now = self.clock(index, time)
        cut = time < self.cut_until[index]
        if cut:
            election.refused()
        elif election.must_look():
            self.at(time + self.latency(), index, "seen", self.store.record)
        elif (write := election.propose(now)) is not None:
            result = self.store.write(write.record)
            answered = rng.random() > 0.05
            self.at(time + self.latency(), index, "answer", (result, now) if answered else None)
        else:
            election.refused()
        self.at(time + (election.wake_at(now) - now), index, "round")

    def do_seen(self, time: float, index: int, value: object) -> None:
        assert value is None or isinstance(value, LeaseRecord)
        election, now = self.candidates[index], self.clock(index, time)
        election.observe(value, now)
        write = election.propose(now)
        if write is not None:
            result = self.store.write(write.record)
            self.at(time + self.latency(), index, "answer", (result, now))

    def do_answer(self, time: float, index: int, value: object) -> None:
        election = self.candidates[index]
        if value is None:
            election.refused()
            return
        assert isinstance(value, tuple)
        result, sent_at = value
        if result is None:
            election.refused()
        else:
            election.stored(result, sent_at, self.clock(index, time))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), candidates=st.integers(2, 4))
def test_never_do_two_lead_at_once_whatever_is_frozen_cut_or_late(seed: int, candidates: int) -> None:
    world = World(seed, candidates)
    world.run(600.0)
    assert world.terms, "nobody ever led"


def test_a_holder_that_dies_is_followed_within_twenty_seconds() -> None:
    """Worst case over the phase between the holder's last renewal and the other's looks."""
    worst = 0.0
    for step in range(200):
        died_at, phase = 1000.0, step / 100.0
        other = Election(SETTINGS, "b")
        other.observe(LeaseRecord("a", 15.0, 0, "1"), died_at - 2.0)
        looked = died_at + phase
        other.observe(LeaseRecord("a", 15.0, 0, "2"), looked)
        time = looked
        while other.propose(time) is None:
            time = other.wake_at(time)
            other.observe(LeaseRecord("a", 15.0, 0, "2"), time)
        worst = max(worst, time - died_at)
    assert 15.0 <= worst <= 17.1
