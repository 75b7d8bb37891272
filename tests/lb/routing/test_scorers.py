"""Each scorer against its formula, on a replica with known numbers."""

from __future__ import annotations

from math import exp
from typing import Any

import pytest

from lb.cost.replica_model import ReplicaModel
from lb.endpoint import Endpoint
from lb.health.warmup import Ramp
from lb.ledger import Entry
from lb.pools import Pool
from lb.replica import GpuReading, GpuState, Pace, Replica
from lb.request import RequestInfo
from lb.roster import Roster
from lb.routing.form import NO_FORM, early_seconds, overlap, seconds
from lb.routing.scorers import FIRST_TOKEN, PREFERENCES, SCORERS, WEIGHTS
from lb.routing.weighing import Weighing
from lb.runtime import RuntimeLoad
from lb.settings import CostSettings, RoutingSettings

PACE = Pace(prefill_s=0.02, token_s=1e-4, token2_s=1e-9, step_s=0.01, running_s=2e-4, context_s=1e-7)
SETTINGS = RoutingSettings(zone="here")
NOW = 1000.0


def replica(**fields: Any) -> Replica:
    made = Replica(Endpoint("r", "r.test", 80, zone="here"), ReplicaModel(CostSettings()), PACE, taught_at=NOW)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def form(name: str, **fields: Any) -> tuple[float, ...]:
    return SCORERS[name].form(replica(**fields), SETTINGS, NOW)


def entry(prompt: float = 1000.0, output: float = 100.0) -> Entry:
    return Entry(Pool("m", Roster(), NOW), prompt, output, True)


def test_predicted_work() -> None:
    idle = form("predicted_work")
    assert idle == pytest.approx((0.02, 1e-4, 1e-9, 0.0102, 2e-4, 0.0))
    assert seconds(idle, 1000.0, 1e6, 100.0, 0.0, 0.0) == pytest.approx(0.02 + 0.1 + 0.001 + 1.02)
    busy = form("predicted_work", in_flight=4, kv_tokens=4000.0)
    assert busy[4] == pytest.approx(2e-4 + 1e-7 * 1000.0), "neighbours' context lengthens shared steps"


def test_predicted_work_waits_for_a_slot() -> None:
    """6 requests on 4 slots with 50 tokens left each: the third to end makes room, at 4 ends per 50 steps."""
    now_s = form("predicted_work", in_flight=6, slots=4, stream_tokens=300.0)[0]
    assert now_s == pytest.approx(0.02 + 3 * 50 * (0.01 + 4 * 2e-4) / 4)


def test_stalled_others() -> None:
    assert form("stalled_others", in_flight=10, waiting=3, foreign=2.0) == pytest.approx(
        (0.0, 9e-4, 9e-9, 0.0, 0.0, 0.0)
    )
    assert form("stalled_others", in_flight=100, slots=8)[1] == pytest.approx(8e-4), "only the batch stands still"


def test_slowed_others() -> None:
    assert form("slowed_others", in_flight=10) == (0.0, 0.0, 0.0, 0.0, 2e-4, 1e-7)


def test_queue_depth() -> None:
    told = RuntimeLoad(running=9, waiting=5, waiting_tokens=7000.0)
    counted = RuntimeLoad(running=9, waiting=5)
    assert form("queue_depth", load=told, foreign=0.0) == NO_FORM, "our own are in the ledger"
    assert form("queue_depth", load=told, foreign=3.0, waiting_tokens=2000.0)[0] == pytest.approx(0.5)
    assert form("queue_depth", load=counted, foreign=3.0, routed_total=10, prompt_tokens_total=8000.0)[
        0
    ] == pytest.approx(3 * 800 * 1e-4)


@pytest.mark.parametrize(("used", "cost_s"), [(0.75, 0.0), (0.9, 0.225), (0.99, 3.6), (1.0, 37.35)])
def test_kv_pressure(used: float, cost_s: float) -> None:
    assert form("kv_pressure", load=RuntimeLoad(kv_usage_ratio=used))[0] == pytest.approx(cost_s)


def test_warmup() -> None:
    assert form("warmup") == NO_FORM
    half = form("warmup", ramp=Ramp(NOW - 5.0, 10.0))
    assert half == pytest.approx((0.02, 1e-4, 1e-9, 0.0102, 0.0, 0.0)), "half the speed: own times once more"


def test_curiosity() -> None:
    assert form("curiosity", taught_at=NOW - 9.0) == NO_FORM
    fade = 1.0 - exp(-1.0)
    assert form("curiosity", taught_at=NOW - 300.0) == pytest.approx(
        (-0.02 * fade, -1e-4 * fade, -1e-9 * fade, -0.0102 * fade, 0.0, 0.0)
    )
    assert form("curiosity", taught_at=0.0 - 1e6)[1] == pytest.approx(-0.9e-4)


def test_gpu_headroom() -> None:
    assert form("gpu_headroom") == NO_FORM
    assert form("gpu_headroom", gpu=GpuReading(headroom_ratio=0.01))[0] == pytest.approx(0.5)
    assert form("gpu_headroom", gpu=GpuReading(headroom_ratio=0.5)) == NO_FORM
    assert form("gpu_headroom", gpu=GpuReading(GpuState.DEGRADED))[1] == pytest.approx(0.25e-4)
    assert form("gpu_headroom", gpu=GpuReading(GpuState.DEGRADED, speed_ratio=0.5)) == NO_FORM, "derated already"


def test_zone() -> None:
    assert form("zone") == NO_FORM
    assert form("zone", endpoint=Endpoint("r", "r", 80, zone="there"))[0] == 0.02
    assert form("zone", endpoint=Endpoint("r", "r", 80)) == NO_FORM


def test_prefix_affinity_saves_exactly_the_work() -> None:
    weighing = Weighing(RoutingSettings())
    one, request, info = replica(), entry(4096.0), RequestInfo(id="x")
    weighing.renew(one, NOW)
    prefix = PREFERENCES["prefix_affinity"]
    assert not prefix.concerns(request, info)
    request.depths, request.block_tokens = [(1, 4)], 512.0
    whole = seconds(one.shape[:6], 4096.0, 4096.0**2, 100.0, request.context, 0.0)
    rest = seconds(one.shape[:6], 2048.0, 4096.0**2 - 2048.0**2, 100.0, request.context, 0.0)
    assert prefix.seconds(one, one.shape, request, info) == pytest.approx(rest - whole)
    request.depths = [(0b10, 4)]
    assert prefix.seconds(one, one.shape, request, info) == 0.0


def test_session_adapter_and_loaded_model() -> None:
    one, request = replica(load=RuntimeLoad(adapters=("a",), loaded_models=("m",))), entry()
    shape = one.shape
    assert not PREFERENCES["session"].concerns(request, RequestInfo(id="x"))
    request.session = one
    assert PREFERENCES["session"].seconds(one, shape, request, RequestInfo(id="x")) == -100.0
    adapter, model = PREFERENCES["adapter"], PREFERENCES["loaded_model"]
    assert adapter.seconds(one, shape, request, RequestInfo(id="x", adapter="a")) == 0.0
    assert adapter.seconds(one, shape, request, RequestInfo(id="x", adapter="b")) == 0.3
    assert model.seconds(one, shape, request, RequestInfo(id="x", model="m")) == 0.0
    assert model.seconds(one, shape, request, RequestInfo(id="x", model="n")) == 10.0
    assert not model.concerns(request, RequestInfo(id="x", model="n")), "no member of the pool loads on demand"


def test_the_first_token_weighs_more_in_what_is_the_requests_own() -> None:
    weighing = Weighing(RoutingSettings(weights={FIRST_TOKEN: 4.0, "stalled_others": 1.0, "curiosity": 0.0}))
    one = replica(in_flight=5)
    weighing.renew(one, NOW)
    assert one.shape[0] == pytest.approx(5 * 0.02)
    assert one.shape[1] == pytest.approx(5 * 1e-4 + 5 * 1e-4)
    assert one.shape[3] == pytest.approx(0.0102)
    assert weighing.wait_weight == 5.0
    assert WEIGHTS[FIRST_TOKEN] > 1.0 > WEIGHTS["stalled_others"]


def test_a_weight_of_zero_turns_a_scorer_off() -> None:
    off = dict.fromkeys(WEIGHTS, 0.0)
    weighing = Weighing(RoutingSettings(weights=off))
    one = replica(in_flight=9, load=RuntimeLoad(kv_usage_ratio=0.99), ramp=Ramp(NOW, 10.0))
    weighing.renew(one, NOW)
    assert one.shape[:6] == NO_FORM
    assert weighing.preferences == []


def test_overlap_is_bounded_by_both_sides() -> None:
    assert overlap(0.0, 0.0, 100.0) == 0.0
    assert overlap(10.0, 1e12, 100.0) == pytest.approx(1000.0), "endless neighbours: every step is shared with all"
    assert overlap(10.0, 50.0, 1e12) == pytest.approx(50.0), "endless request: every token they have left"
    assert overlap(10.0, 1000.0, 100.0) == pytest.approx(500.0)


def test_early_seconds_leave_out_the_tokens() -> None:
    assert early_seconds((1.0, 2.0, 3.0, 4.0, 5.0, 6.0), 10.0, 100.0) == pytest.approx(321.0)
