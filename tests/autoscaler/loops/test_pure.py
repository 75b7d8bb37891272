"""The parts of the loop that are functions: demand by pool, two views made one, instants over a restart, telling."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.action import Drain, ScaleUp
from autoscaler.actuator import Observation, Observed
from autoscaler.controller import Controller
from autoscaler.decide.decision import Decision
from autoscaler.fleet import Phase, ReplicaFact
from autoscaler.loops.demand import Rates, models_of, objectives_of, pool_demand, request_rate
from autoscaler.loops.hands import Applied
from autoscaler.loops.joined import endpoints, in_flight, join, reported
from autoscaler.loops.memory import pack, unpack
from autoscaler.loops.telling import REPEAT_TICKS, Telling, record
from autoscaler.policy.pools import Mode, ScalingSettings
from lb.cost.replica_model import Coefficients
from lb.endpoint import Endpoint
from lb.signals import Objective
from lb.views import ModelDemand, ReplicaView
from tests.autoscaler.loops.conftest import pool

SPEED = Coefficients(0.02, 1e-4, 0.0, 0.0, 0.01, 0.0005, 1e-7, 1.0, 50, 50)


def model(name: str = "m", **fields: Any) -> ModelDemand:
    known = {one.name: 0 for one in dataclasses.fields(ModelDemand)}
    known |= {"model": name, "missed_total": 0, "first_token_p95_s": None, "inter_token_p95_s": None,
              "latency_p95_s": None}  # fmt: skip
    return ModelDemand(**{**known, **fields})  # type: ignore[arg-type]


def view(id_: str = "a", state: str = "ready", **fields: Any) -> ReplicaView:
    known: dict[str, Any] = {
        "id": id_, "url": f"http://{id_}", "state": state, "reason": "", "since_s": 5.0, "models": ("m",),
        "runtime": None, "zone": None, "in_flight": 0, "in_flight_limit": 8, "foreign": 0.0, "abandoned": 0,
        "outstanding_tokens": 0.0, "predicted_backlog_s": 0.0, "running": None, "waiting": None,
        "kv_usage_ratio": None, "load_age_s": None, "slots": None, "ejected_until_s": None, "consecutive_faults": 0,
        "warm_ratio": 1.0, "drain_left_s": None, "gpu_state": None, "gpu_reason": "", "coefficients": SPEED,
        "prediction_error": 0.0, "tokens_per_event": 1.0, "cache_trust": 1.0, "routed_total": 0,
        "prompt_tokens_total": 0.0,
    }  # fmt: skip
    return ReplicaView(**{**known, **fields})


# ---------------------------------------------------------------------- demand


def test_models_belong_to_who_names_them_and_the_rest_to_who_names_none() -> None:
    pools = [pool("a", models=("x", "y")), pool("b", models=()), pool("c", models=("y", "z"))]
    found = models_of(pools, ["x", "y", "q", ""])
    assert found == {"a": ("x", "y"), "b": ("", "q"), "c": ("z",)}
    assert models_of([pool("a", models=("x",))], ["", "q"]) == {"a": ("", "x")}


def test_objectives_go_where_models_do() -> None:
    slow = {"first_token_s": 9.0, "inter_token_s": 1.0}
    by_model, rest = objectives_of([pool("a", models=("x",), objective=slow), pool("b", models=())])
    assert by_model == {"x": Objective(9.0, 1.0)}
    assert rest == Objective(2.0, 0.1)
    assert objectives_of([pool("a", models=("x",)), pool("b", models=("y",))])[1] is None


def test_rates_are_known_from_half_a_window_on_and_exact() -> None:
    rates = Rates()
    assert rates.observe([model(offered_total=100)], 15.0, 0.0) is None
    assert rates.observe([model(offered_total=130)], 15.0, 15.0) is None
    half = rates.observe([model(offered_total=160, output_tokens_total=300.0)], 15.0, 30.0)
    assert half is not None
    assert (half.requests, half.output_tokens, half.window_s) == (2.0, 10.0, 30.0)
    for tick in range(3, 12):
        last = rates.observe([model(offered_total=160)], 15.0, 15.0 * tick)
    assert last is not None
    assert (last.requests, last.window_s) == (0.0, 60.0)


def test_a_model_that_appears_counts_whole_and_one_that_was_forgotten_anew() -> None:
    rates = Rates()
    for tick in range(4):
        rates.observe([model("a", offered_total=50)], 15.0, 15.0 * tick)
    found = rates.observe([model("a", offered_total=10), model("b", offered_total=120)], 15.0, 60.0)
    assert found is not None
    assert found.requests == 2.0


def test_a_gap_in_the_ticks_is_no_rate() -> None:
    rates = Rates()
    rates.observe([model(offered_total=0)], 15.0, 0.0)
    assert rates.observe([model(offered_total=9000)], 15.0, 3600.0) is None


def test_a_pools_demand_is_the_sum_of_its_models() -> None:
    demand = {
        "x": model("x", offered_total=10, missed_total=1, queued=2, in_flight=3, backlog_s=4.0, first_token_p95_s=0.5),
        "y": model("y", offered_total=20, missed_total=2, in_flight=1, backlog_s=9.0, first_token_p95_s=1.5),
        "other": model("other", offered_total=999),
    }
    ready = [view("a", kv_usage_ratio=0.4), view("b", kv_usage_ratio=0.6), view("c", "failed", kv_usage_ratio=1.0)]
    found = pool_demand(pool(), ("x", "y", "gone"), demand, ready, Rates(), at=5.0, interval_s=15.0)
    assert (found.offered_total, found.missed_total, found.queued, found.in_flight) == (30, 3, 2, 4)
    assert (found.backlog_s, found.first_token_s, found.kv_usage) == (9.0, 1.5, 0.5)
    assert (found.requests_per_s, found.latency_s, found.speed_per_s) == (None, None, None)


def test_work_that_nobody_can_do_has_no_backlog_in_seconds() -> None:
    waiting = {"m": model(queued=3, held=3, backlog_s=float("inf"))}
    found = pool_demand(pool(), ("m",), waiting, [], Rates(), at=0.0, interval_s=15.0)
    assert (found.backlog_s, found.held, found.queued) == (None, 3, 3)
    idle = pool_demand(pool(), ("m",), {"m": model()}, [], Rates(), at=0.0, interval_s=15.0)
    assert idle.backlog_s == 0.0


@given(
    prompt=st.floats(1, 20_000),
    output=st.floats(1, 4000),
    gap=st.floats(0.02, 0.5),
    slots=st.none() | st.integers(1, 512),
)
def test_what_a_replica_can_do_obeys_its_own_equations(
    prompt: float, output: float, gap: float, slots: int | None
) -> None:
    rate = request_rate(SPEED, prompt, output, gap, slots)
    prefill = SPEED.prefill_fixed_s + SPEED.prefill_s_per_token * prompt
    busy = rate * prefill
    assert 0.0 < busy < 1.0, "prompts take less than all the time"
    assert rate <= request_rate(SPEED, prompt, output, gap * 1.5, slots) * (1 + 1e-9), "slower is more"
    assert rate >= request_rate(SPEED, prompt, output * 1.5, gap, slots) * (1 - 1e-9), "longer is less"
    assert request_rate(SPEED, prompt, 0.0, gap, slots) == pytest.approx(1.0 / prefill)


# ---------------------------------------------------------------------- two views made one


def seen(phase: Phase, **fields: Any) -> Observation:
    fact = ReplicaFact("a", phase, start_id="a", since_s=90.0)
    return Observation(100.0, (Observed(fact, Endpoint(id="a", host="h", port=1), **fields),))


@pytest.mark.parametrize(
    ("actuator", "balancer", "expected"),
    [
        (Phase.READY, None, Phase.STARTING),
        (Phase.STARTING, None, Phase.STARTING),
        (Phase.READY, "joining", Phase.STARTING),
        (Phase.READY, "ready", Phase.READY),
        (Phase.STARTING, "ready", Phase.READY),
        (Phase.READY, "trial", Phase.READY),
        (Phase.READY, "ejected", Phase.STARTING),
        (Phase.READY, "failed", Phase.STARTING),
        (Phase.READY, "draining", Phase.DRAINING),
        (Phase.STOPPING, "draining", Phase.STOPPING),
        (Phase.FAILED, "ready", Phase.FAILED),
    ],
)
def test_phases(actuator: Phase, balancer: str | None, expected: Phase) -> None:
    views = {} if balancer is None else {"a": view("a", balancer, in_flight=2)}
    joined = join(pool(), seen(actuator), views, 100.0)
    (fact,) = joined.fleet.replicas
    assert fact.phase is expected
    assert fact.in_flight == (None if balancer is None else 2)


def test_what_has_not_served_for_as_long_as_a_start_may_take_is_broken_if_nothing_runs_on_it() -> None:
    long = view("a", "failed", since_s=301.0)
    assert join(pool(), seen(Phase.READY), {"a": long}, 100.0).fleet.replicas[0].phase is Phase.FAILED
    busy = replace(long, in_flight=1)
    assert join(pool(), seen(Phase.READY), {"a": busy}, 100.0).fleet.replicas[0].phase is Phase.STARTING
    fresh = replace(long, since_s=299.0)
    assert join(pool(), seen(Phase.READY), {"a": fresh}, 100.0).fleet.replicas[0].phase is Phase.STARTING


def test_the_instant_of_being_ready_is_who_said_it_first() -> None:
    both = join(pool(), seen(Phase.READY), {"a": view("a", since_s=2.0)}, 100.0).fleet.replicas[0]
    assert both.since_s == 90.0
    balancer = join(pool(), seen(Phase.STARTING), {"a": view("a", since_s=2.0)}, 100.0).fleet.replicas[0]
    assert balancer.since_s == 98.0


def test_in_flight_counts_whoever_might_be_cut() -> None:
    assert in_flight(view(in_flight=2, abandoned=1, foreign=1.2)) == 5
    assert in_flight(view(in_flight=1, running=3.0, waiting=2.0)) == 5
    assert in_flight(view(running=0.0)) == 0


def test_a_partial_observation_takes_no_address_away() -> None:
    a, b = Endpoint(id="a", host="h", port=1), Endpoint(id="b", host="h", port=2)
    partial = replace(seen(Phase.READY), complete=False)
    assert endpoints(partial, (a, b)) == (a, b)
    assert endpoints(seen(Phase.READY), (a, b)) == (a,)
    assert endpoints(seen(Phase.FAILED), (a,)) == ()
    assert endpoints(replace(seen(Phase.FAILED), complete=False), (a, b)) == (b,)


def test_who_has_no_actuator_sees_the_balancers_replicas_of_its_models() -> None:
    views = {
        "a": view("a"), "b": view("b", models=("other",)), "c": view("c", models=None), "d": view("d"),
        "e": view("e", "failed"),
    }  # fmt: skip
    found = {one.fact.id: one.fact.phase for one in reported(pool(), views, frozenset({"d"}), 10.0)}
    assert found == {"a": Phase.READY, "c": Phase.READY, "e": Phase.STARTING}


# ---------------------------------------------------------------------- over a restart


def state() -> dict[str, object]:
    return {"chat": {"draining": {"a": 1000.0}, "starts": {"count": 3, "open": {"s": ["default", 900.0, None]}}}}


def test_within_a_boot_instants_stay() -> None:
    packed = json.loads(json.dumps(pack(state(), boot="b", now=1000.0, wall=5000.0)))
    assert unpack(packed, boot="b", now=1010.0, wall=99_999.0) == state()


def test_after_another_boot_instants_move_by_the_time_that_passed() -> None:
    packed = json.loads(json.dumps(pack(state(), boot="b", now=1000.0, wall=5000.0)))
    moved: Any = unpack(packed, boot="other", now=20.0, wall=5060.0)
    assert moved["chat"]["draining"]["a"] == pytest.approx(20.0 - 60.0)
    assert moved["chat"]["starts"]["open"]["s"][1] == pytest.approx(20.0 - 160.0)
    back: Any = unpack(packed, boot="other", now=20.0, wall=1.0)
    assert back["chat"]["draining"]["a"] == pytest.approx(20.0), "a clock that went back says nothing"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ODD = st.fixed_dictionaries(
    {},
    optional={
        "boot": JSON, "now": JSON | st.just(1.0), "wall": JSON | st.just(1.0),
        "pools": JSON | st.dictionaries(st.just("chat"), st.fixed_dictionaries(
            {}, optional={"draining": JSON, "starts": st.fixed_dictionaries({}, optional={"open": JSON, "count": JSON})}
        )),
    },
)  # fmt: skip


@given(ODD)
def test_whatever_the_store_holds_the_controller_starts(packed: dict[str, object]) -> None:
    controller = Controller(ScalingSettings(pools=(pool(),)), epoch="e")
    controller.restore(unpack(packed, boot="b", now=10.0, wall=10.0))
    assert controller.tick({}, {}, now=10.0).actions == ()


# ---------------------------------------------------------------------- the telling


def decision(**fields: Any) -> Decision:
    known: dict[str, Any] = {
        "pool": "chat", "at": 1.0, "mode": Mode.OWN, "ready": 2, "supply": 2, "desired": 2, "binding": "floor",
        "reason": "min", "would_change": "", "proposals": (), "demand": 1.0, "band": None, "predictor": "",
        "score": 0.0, "per_replica": 1.0, "lead_p50_s": 1.0, "lead_p95_s": 2.0, "cost_per_hour": 5.0, "bad": (),
    }  # fmt: skip
    return Decision(**{**known, **fields})


def test_a_line_for_what_is_new_and_now_and_then_for_what_stays_wrong(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="autoscaler.loops.telling")
    telling = Telling()
    assert telling.say(decision(), "", ())
    for _ in range(50):
        assert not telling.say(decision(reason="it varies"), "", ())
    assert len(caplog.messages) == 1, "a pool at rest is quiet"
    wrong = decision(fault="stuck")
    for _ in range(2 * REPEAT_TICKS + 1):
        telling.say(wrong, "", ())
    assert len(caplog.messages) == 1 + 3
    assert telling.say(decision(desired=3, fault="stuck"), "", ())
    assert telling.say(decision(), "it hangs", ())
    assert caplog.messages[-1].endswith("FAULT it hangs")


def test_acts_are_always_told_and_failures_are_no_acts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="autoscaler.loops.telling")
    telling, drain = Telling(), Drain("chat", "a", 60.0, "less")
    telling.say(decision(), "", ())
    assert telling.say(decision(), "", (Applied(drain),))
    assert not telling.say(decision(), "", (Applied(drain, "refused"),))


def test_a_record_is_json_and_names_what_was_done() -> None:
    applied = (
        Applied(ScaleUp("chat", "default", ("s-1", "s-2"), 4, "more")),
        Applied(Drain("chat", "a", 1.0, "x"), "no"),
    )
    row = record(decision(), applied, None, {"default": {}}, "f", wall=1.7e9, notable=True)
    told: Any = json.loads(json.dumps(row.record))
    assert told["actions"][0] == {"action": "scale_up", "reason": "more", "error": "", "about": "s-1, s-2"}
    assert told["actions"][1]["error"] == "no"
    assert (told["at"], told["loop_fault"], told["forecast"], row.notable) == (1.7e9, "f", None, True)


def test_numbers_that_are_none_are_null_in_a_record() -> None:
    odd = decision(score=float("inf"), band=(1.0, float("nan"), 2.0), demand=None)
    told = record(odd, (), None, {}, "", wall=1.0, notable=False).record
    assert json.loads(json.dumps(told, allow_nan=False))["band"] == [1.0, None, 2.0]
    assert told["score"] is None
