"""What a GPU's word does in the balancer: out when lost, drained when told so, slower when throttled, and explained."""

from __future__ import annotations

import pytest

from lb.effects import Abort, Queued, Routed
from lb.replica import GpuReading, GpuState
from tests.lb.balancer.driver import FAILED, Box, settings

LOST = GpuReading(GpuState.LOST, reason="the driver says that the GPU is lost")
DRAIN = GpuReading(GpuState.DRAIN, reason="XID 48: double bit ECC error")
OK = GpuReading(GpuState.OK, headroom_ratio=0.1, speed_ratio=1.0)


@pytest.fixture
def box() -> Box:
    made = Box(settings(health={"warmup": 0.0}))
    made.join("a", "b")
    return made


def see(box: Box, name: str, reading: GpuReading | None) -> None:
    box.effects += box.balancer.observe_gpu(name, reading, box.now)


@pytest.mark.parametrize(("reading", "state"), [(LOST, "failed"), (DRAIN, "draining")])
def test_a_bad_card_takes_no_new_work_and_cuts_nothing(box: Box, reading: GpuReading, state: str) -> None:
    tickets = [box.routed() for _ in range(4)]
    running = [ticket for ticket in tickets if ticket.replica is not None and ticket.replica.id == "a"]
    assert running
    see(box, "a", reading)
    assert box.state("a") == state
    assert box.balancer.replicas["a"].reason == reading.reason
    assert box.where(10) == {"b": 10}
    box.poll(600)
    assert not [effect for effect in box.effects if isinstance(effect, Abort)], "what runs may end"
    for ticket in tickets:
        box.finish(ticket)
    box.probe("a", times=5)
    assert box.state("a") == state, "a server that answers does not make its card whole"


@pytest.mark.parametrize("reading", [LOST, DRAIN])
@pytest.mark.parametrize("after", [OK, None, GpuReading(GpuState.DEGRADED)])
def test_it_comes_back_with_its_card_once_its_probes_pass(
    box: Box, reading: GpuReading, after: GpuReading | None
) -> None:
    see(box, "a", reading)
    see(box, "a", after)
    assert box.state("a") == "joining"
    box.probe("a", times=3)
    assert box.state("a") == "ready"


def test_a_card_that_drains_and_is_then_lost_comes_back_too(box: Box) -> None:
    see(box, "a", DRAIN)
    see(box, "a", LOST)
    assert box.state("a") == "draining"
    see(box, "a", OK)
    assert box.state("a") == "joining"


@pytest.mark.parametrize("reading", [LOST, DRAIN])
def test_the_card_does_not_take_back_what_an_operator_took_out(box: Box, reading: GpuReading) -> None:
    box.balancer.drain("a", box.now)
    see(box, "a", reading)
    see(box, "a", OK)
    assert box.state("a") == "draining"
    box.balancer.undrain("a", box.now)
    assert box.state("a") == "ready"


def test_an_operators_drain_of_a_draining_card_outlives_the_cards(box: Box) -> None:
    see(box, "a", DRAIN)
    box.balancer.drain("a", box.now)
    see(box, "a", OK)
    assert box.state("a") == "draining"


@pytest.mark.parametrize(("reading", "state"), [(LOST, "failed"), (DRAIN, "draining")])
def test_an_operator_cannot_take_back_what_its_card_keeps_out(box: Box, reading: GpuReading, state: str) -> None:
    box.balancer.drain("a", box.now)
    see(box, "a", reading)
    box.balancer.undrain("a", box.now)
    assert (box.state("a"), box.balancer.replicas["a"].reason) == (state, reading.reason)
    see(box, "a", OK)
    assert box.state("a") == "joining"


def test_readings_that_are_too_old_change_nothing(box: Box) -> None:
    see(box, "a", GpuReading(GpuState.UNKNOWN, reason="the last reading is 31 s old"))
    assert box.state("a") == "ready"
    assert set(box.where(40)) == {"a", "b"}
    shown = {view.id: view for view in box.balancer.view(box.now).replicas}["a"]
    assert (shown.gpu_state, shown.gpu_reason) == ("unknown", "the last reading is 31 s old")


def test_all_cards_bad_is_a_queue_and_not_an_answer_from_a_bad_card(box: Box) -> None:
    for name in ("a", "b"):
        see(box, name, DRAIN)
    assert isinstance(box.offer(), Queued)
    see(box, "b", OK)
    effects_before = len(box.effects)
    box.probe("b", times=3)
    assert [e for e in box.effects[effects_before:] if isinstance(e, Routed)], "the queued one goes to the one back"


def test_a_throttled_card_is_slower_by_its_clock_at_once_and_back_at_once(box: Box) -> None:
    before = box.balancer.replicas["a"].speed.step_s(4, 4000)
    see(box, "a", GpuReading(GpuState.DEGRADED, speed_ratio=0.5, reason="clocks held down (hw_thermal)"))
    assert box.balancer.replicas["a"].speed.step_s(4, 4000) == pytest.approx(2 * before)
    # One after the other, so that only speed decides.
    assert box.where(20) == {"b": 20}
    see(box, "a", OK)
    assert box.balancer.replicas["a"].speed.step_s(4, 4000) == pytest.approx(before)


def test_the_card_is_a_term_of_the_explanation(box: Box) -> None:
    see(box, "a", GpuReading(GpuState.DEGRADED, speed_ratio=None, reason="XID 94"))
    see(box, "b", GpuReading(GpuState.OK, headroom_ratio=0.0, speed_ratio=1.0))
    ticket = box.routed()
    told = box.balancer.explain(ticket.info.id)
    assert told is not None
    terms = {candidate.replica_id: candidate.terms["gpu_headroom"] for candidate in told.candidates}
    assert terms["b"] == pytest.approx(1.0), "no memory left: a second"
    assert terms["a"] > 0.0, "degraded without a known clock: a quarter slower"


def test_probes_still_count_for_a_replica_whose_card_is_fine(box: Box) -> None:
    see(box, "a", OK)
    box.probe("a", FAILED, times=5)
    assert box.state("a") == "failed"
