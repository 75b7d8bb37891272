"""What other balancers do on a replica: counted before it is ended, learned from, and never guessed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from autoscaler.action import Drain, Stop
from autoscaler.loops.balancers import Balancers, Named
from autoscaler.loops.elsewhere import Elsewhere, ToldReplica, read_replicas
from autoscaler.loops.joined import in_flight
from autoscaler.policy.balancers import BalancersSettings
from lb.clock import Clock
from lb.views import ReplicaView
from tests.autoscaler.loops.conftest import Make
from tests.autoscaler.loops.test_balancers import Elsewhere as Server
from tests.autoscaler.loops.test_balancers import asked, elsewhere  # noqa: F401
from tests.autoscaler.loops.test_pure import model, view

A, B = "http://10.0.0.8:9400", "http://10.0.0.9:9400"


def told(state: str = "ready", **fields: Any) -> ToldReplica:
    return ToldReplica(id="r", state=state, **fields)


def mine(**fields: Any) -> ReplicaView:
    return replace(view("r"), **fields)


def test_work_of_all_balancers_adds_up() -> None:
    answers = Elsewhere(40.0)
    answers.take(A, [told(in_flight=3, predicted_backlog_s=1.5, prefix_blocks=7)], 0.0)
    answers.take(B, [told(in_flight=2, abandoned=1, predicted_backlog_s=None)], 0.0)
    found = answers.merged(mine(in_flight=1, foreign=5.0, predicted_backlog_s=0.5), 0.0)
    assert (found.in_flight, found.abandoned, found.foreign) == (6, 1, 0.0)
    assert in_flight(found) == 7, "what our readings infer is theirs, and not counted twice"
    assert (found.predicted_backlog_s, found.prefix_blocks) == (2.0, 7)


def test_what_is_old_or_gone_counts_for_nothing_and_lets_nothing_end() -> None:
    answers = Elsewhere(40.0)
    answers.take(A, [told("draining", in_flight=3)], 0.0)
    assert answers.merged(mine(), 41.0) == mine()
    assert A in answers.keeps("r", [A], 41.0)
    answers.take(A, [told("draining")], 41.0)
    assert answers.keeps("r", [A], 41.0) == ""
    assert B in answers.keeps("r", [A, B], 41.0), "one that never answered"
    answers.keep([])
    assert A in answers.keeps("r", [A], 41.0)
    assert answers.keeps("r", [], 41.0) == ""


@pytest.mark.parametrize("state", ["ready", "trial", "starting", "failed", "ejected", "something new"])
def test_one_that_has_not_heard_of_a_drain_may_send_more(state: str) -> None:
    answers = Elsewhere(40.0)
    answers.take(A, [told(state)], 0.0)
    assert "drain" in answers.keeps("r", [A], 0.0)
    assert answers.keeps("another", [A], 0.0) == "", "it is not listed there"


def test_a_replica_that_is_listed_twice_counts_as_the_open_one() -> None:
    answers = Elsewhere(40.0)
    answers.take(A, [told("draining", in_flight=2), told("ready", in_flight=1)], 0.0)
    assert answers.merged(mine(), 0.0).in_flight == 3
    assert answers.keeps("r", [A], 0.0) != ""
    answers.take(A, [told("ready"), told("draining")], 0.0)
    assert answers.keeps("r", [A], 0.0) != ""


def test_the_speed_is_that_of_the_balancer_which_has_seen_most() -> None:
    answers = Elsewhere(40.0)
    own = view("r").coefficients
    learned = replace(own, step_fixed_s=0.5, steps=5000)
    answers.take(A, [told(coefficients=msgspec.to_builtins(replace(own, steps=40)))], 0.0)
    answers.take(B, [told(coefficients={**msgspec.to_builtins(learned), "new": 1})], 0.0)
    assert answers.merged(mine(), 0.0).coefficients == learned
    answers.take(B, [told(coefficients={**msgspec.to_builtins(learned), "step_fixed_s": None})], 0.0)
    assert answers.merged(mine(), 0.0).coefficients.steps in (40, own.steps), "what is no number is not believed"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"replicas": [{}]}', b'{"replicas": [{"id": 3, "state": "x"}]}'])
def test_what_is_no_list_of_replicas_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        read_replicas(body)


async def test_a_real_balancer_says_what_it_does_with_a_replica(elsewhere: Server) -> None:  # noqa: F811
    now = [100.0]
    balancers = asked(f"http://{elsewhere.server.address}", now)
    assert balancers.keeps("http://127.0.0.1:1", 100.0) != "", "nobody was asked yet"
    elsewhere.offer(3)
    await balancers.look()
    theirs = balancers.seen(replace(view("http://127.0.0.1:1"), in_flight=0), 100.0)
    assert theirs.in_flight == 3
    assert "still sends" in balancers.keeps(theirs.id, 100.0)
    elsewhere.gateway.set_source("static", [])
    await balancers.look()
    assert balancers.keeps(theirs.id, 100.0) == "", "it drains there"
    assert balancers.seen(replace(theirs, in_flight=0), 100.0).in_flight == 3, "and has what it had"
    await balancers.close()


class Scripted(Balancers):
    """A balancer whose answers a test writes."""

    def __init__(self, clock: Clock) -> None:
        super().__init__((Named(BalancersSettings(url="http://there:1")),), clock, stale_s=40.0)
        self.states: dict[str, tuple[str, int]] = {}
        self.total = 0
        self._known = {"http://there:1": (A,)}

    async def look(self) -> None:
        now = self._clock.monotonic()
        self._merging.take(A, {"m": model(offered_total=self.total)}, now)
        replicas = [ToldReplica(id=name, state=state, in_flight=count) for name, (state, count) in self.states.items()]
        self._elsewhere.take(A, replicas, now)


async def test_a_replica_is_ended_once_each_balancer_has_drained_it(make: Make) -> None:
    rig = await make(ready=2)
    there = Scripted(rig.clock)
    rig.loop._balancers = rig.loop._acting._balancers = there
    there.states = {"old-0": ("ready", 2), "old-1": ("ready", 2)}
    for _ in range(40):
        await rig.tick()
        if rig.actuator.names(Drain):
            break
    (victim,) = rig.actuator.names(Drain)
    await rig.tick(10)
    assert rig.actuator.names(Stop) == [], "two requests of another balancer run on it"
    there.states[victim] = ("ready", 0)
    await rig.tick(10)
    assert rig.actuator.names(Stop) == [], "it has not heard of the drain"
    assert "has not heard of its drain" in str(rig.loop.report())
    there.states[victim] = ("draining", 1)
    await rig.tick(5)
    assert rig.actuator.names(Stop) == []
    there.states[victim] = ("draining", 0)
    await rig.tick(2)
    assert rig.actuator.names(Stop) == [victim]
