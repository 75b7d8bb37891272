"""Series, loads, start-ups, oracles and sweeps."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.sim.oracle import MeanOracle, plan
from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policy import Reading
from autoscaler.sim.roster import Roster, SimReplica
from autoscaler.sim.score import Score
from autoscaler.sim.series import read_series, read_trace
from autoscaler.sim.start_up import SCENARIOS, Scenario
from autoscaler.sim.sweep import at_misses, search
from autoscaler.sim.workload import Load, load_of, load_of_trace, peak_of
from forecaster.errors import SeriesError


def test_a_series_with_lost_telemetry() -> None:
    series = read_series(["timestamp,value", "2024-01-01T00:00:00,5", "2024-01-01T00:10:00,", "2024-01-01T00:20:00,7"])
    assert series.step_s == 600
    assert np.isnan(series.values[1])
    load = load_of(series, days=None, peak_per_s=None, seed=1)
    assert 5.0 < load.intensity[900] < 7.5, "a gap is bridged, not taken for no demand"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["timestamp,value", "0,1"], "at least two"),
        (["timestamp,value", "0,1", "60,", "120,"], "at least two"),
        (["timestamp,value", "0,1", "60,x"], "line 3"),
        (["timestamp,value", "0,1", "60,-1"], "line 3"),
        (["timestamp,value", "0,1", "60,inf"], "line 3"),
        (["timestamp,value", "0,1", "noon,2"], "line 3"),
        (["timestamp,value", "0,1", "60"], "line 3"),
    ],
)
def test_a_bad_series_is_refused_with_its_line(lines: list[str], says: str) -> None:
    with pytest.raises(SeriesError, match=says):
        read_series(lines)


def test_a_bad_trace_is_refused_with_its_line() -> None:
    with pytest.raises(SeriesError, match="line 1"):
        read_trace(["when,what", "1,2"])
    with pytest.raises(SeriesError, match="line 3"):
        read_trace(["arrival_seconds,input_tokens,output_tokens", "0,1,1", "1,x,1"])


def test_the_peak_is_what_was_asked_for() -> None:
    rows = ["timestamp,value", *(f"{60 * minute},{100 + minute % 50}" for minute in range(600))]
    load = load_of(read_series(rows), days=0.25, peak_per_s=42.0, seed=1)
    assert peak_of(load.intensity) == pytest.approx(42.0)
    assert load.start == 600 * 60 - 21_600
    assert float(load.arrivals.mean()) == pytest.approx(float(load.intensity.mean()), rel=0.02)


def test_a_trace_is_superposed_to_a_peak_without_stretching_time() -> None:
    rows = ["arrival_seconds,input_tokens,output_tokens", *(f"{second},10,10" for second in range(3600))]
    load = load_of_trace(read_trace(rows), days=None, peak_per_s=8.0, seed=1)
    assert len(load.arrivals) == 3600
    assert float(load.arrivals[60:-60].mean()) == pytest.approx(8.0, rel=0.1)


def test_of_a_trace_the_last_days_are_played() -> None:
    rows = ["arrival_seconds,input_tokens,output_tokens", *(f"{10 * index},10,10" for index in range(8640))]
    load = load_of_trace(read_trace(rows), days=0.25, peak_per_s=None, seed=1)
    assert len(load.arrivals) - load.start == 21_600


def test_start_ups_have_their_quantiles_and_belong_to_the_ordinal() -> None:
    scenario = SCENARIOS["node"]
    draws = [scenario.draw(1, ordinal) for ordinal in range(4000)]
    assert np.median(draws) == pytest.approx(100.0, rel=0.05)
    assert np.quantile(draws, 0.95) == pytest.approx(240.0, rel=0.08)
    assert draws == [scenario.draw(1, ordinal) for ordinal in range(4000)]
    assert draws[:10] != [scenario.draw(2, ordinal) for ordinal in range(10)]


def test_scarce_nodes_take_half_an_hour_more_now_and_then() -> None:
    draws = [SCENARIOS["scarce"].draw(1, ordinal) for ordinal in range(4000)]
    assert np.mean(np.array(draws) > 1900.0) == pytest.approx(0.05, abs=0.015)


def test_the_oracle_bridges_lulls_that_are_shorter_than_a_start() -> None:
    needed = np.array([2] * 10 + [1] * 5 + [2] * 10)
    assert list(plan(needed, 60.0, 0.0)) == [2] * 25
    assert list(plan(needed, 30.0, 0.0)) == list(needed)


def test_the_mean_oracle_knows_the_next_quarter_of_an_hour_and_nothing_else() -> None:
    intensity = np.repeat([10.0, 10.0, 40.0, 20.0], 900)
    load = Load(np.zeros(3600, np.int64), 900, 0.0, intensity, 40.0)
    setting = Setting(10.0, 8.0, 16, 4, 3, SCENARIOS["warm"], load, 0.01)
    one = MeanOracle(0.5, setting)
    sizes = []
    there = roster()
    there.place(one.start, 0.0)
    for now in (0.0, 900.0, 1800.0):
        one.tick(Reading(now, 0, 0, None, None, None, None, 0.0, 0.0), there)
        sizes.append(there.wanted)
    # 10, 40 and 20 requests a second at half of what a replica serves; three replicas are all that may be.
    assert sizes == [2, 3, 3]
    assert MeanOracle(1.0, setting).start == 1


def roster(scenario: Scenario = SCENARIOS["warm"]) -> Roster:
    def nothing(replica: SimReplica, now: float) -> None:
        return None

    return Roster(scenario, 1, 5, nothing, nothing, nothing)


def test_a_roster_cancels_starts_before_it_drains() -> None:
    one = roster()
    one.place(2, 0.0)
    one.scale_to(4, 10.0)
    assert len(one.starting) == 2
    one.scale_to(2, 11.0)
    assert (len(one.starting), len(one.ready), len(one.draining)) == (0, 2, 0)
    one.scale_to(9, 12.0)
    assert one.wanted == 5
    one.advance(10_000.0)
    assert len(one.ready) == 5
    # Two replicas from the start, two cancelled after a second each, three that were asked for at 12.
    assert one.billed_until(1012.0) == pytest.approx(2 * 1012.0 + 2 * 1.0 + 3 * 1000.0)


def score(knob: float, misses: float, hours: float) -> Score:
    return Score("x", knob, 1, 168.0, hours, misses, 0.0, 0.0, 0.0, 1, 0.0, 0.0, 0, 0, 1)


def test_hours_at_equal_misses_lie_between_the_knobs() -> None:
    runs = [score(1.0, 0.1, 100.0), score(0.8, 0.001, 120.0)]
    assert at_misses(runs, 0.01) == pytest.approx(110.0)
    assert at_misses(runs, 0.2) == 100.0
    assert at_misses(runs, 0.0001) == float("inf")


def test_only_neighbours_are_joined() -> None:
    """From where everything misses, a line to the safest run passes under the runs between them."""
    between = [score(0.9, 0.02, 118.0), score(0.8, 0.005, 121.0)]
    runs = [score(1.4, 0.9, 40.0), *between, score(0.5, 0.0001, 130.0)]
    assert at_misses(runs, 0.01) == pytest.approx(at_misses(between, 0.01))


def test_a_search_closes_in_on_the_target() -> None:
    def run(knob: float) -> Score:
        return score(knob, 10.0 ** (4.0 * knob - 5.0), 100.0 - 50.0 * knob)

    runs = search(run, (0.1, 0.9), 0.01, rounds=6)
    assert min(abs(one.misses - 0.01) for one in runs) < 0.001
