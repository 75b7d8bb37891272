"""From proposals to a size: strides upwards, and how long all must have agreed before anything goes."""

from __future__ import annotations

import pytest

from autoscaler.decide.recommender import Proposal
from autoscaler.decide.stabilize import Stabilizer, Step, usual_hold_s
from autoscaler.policy.pools import DownSettings, PoolSettings


def stabilizer(**changes: object) -> Stabilizer:
    return Stabilizer(PoolSettings.model_validate({"name": "chat", "min_replicas": 1, "max_replicas": 20, **changes}))


def step(one: Stabilizer, supply: int, now: float, *proposals: Proposal, lead_s: float = 100.0) -> Step:
    return one.step(proposals, supply, True, "", lead_s, now)


@pytest.mark.parametrize(
    ("supply", "want", "stride", "desired", "further"),
    [
        (10, 10.2, 11.6, 12, True),  # grows, and goes on to the nearest of its stride
        (10, 10.2, 11.4, 11, False),
        (10, 10.0, 11.6, 10, False),  # enough: a stride alone is no reason to grow
        (2, 2.1, 2.3, 3, False),  # a small pool takes one at a time
        (10, 12.4, 0.0, 13, False),  # a source that says nothing of strides
        (10, 19.5, 25.0, 20, True),  # bounds hold for strides too
    ],
)
def test_who_grows_goes_as_far_as_its_stride(
    supply: int, want: float, stride: float, desired: int, further: bool
) -> None:
    said = step(stabilizer(), supply, 0.0, Proposal("predictive", want, want, "8/s expected", stride=stride))
    assert said.desired == desired
    assert ("to save the next step" in said.reason) is further


def test_a_stride_is_taken_only_of_the_source_that_wants_most() -> None:
    floor = Proposal("schedule", 15.0, 15.0, "office hours")
    said = step(stabilizer(), 10, 0.0, floor, Proposal("predictive", 12.0, 12.0, "8/s expected", stride=18.0))
    assert (said.desired, said.binding) == (15, "schedule")


@pytest.mark.parametrize(("lead_s", "hold_s"), [(0.0, 360.0), (100.0, 360.0), (270.0, 594.0), (1200.0, 2640.0)])
def test_the_usual_hold_outlasts_two_starts(lead_s: float, hold_s: float) -> None:
    assert usual_hold_s(DownSettings(), lead_s) == pytest.approx(hold_s)
    assert usual_hold_s(DownSettings(hold_s=30.0), lead_s) == 30.0


@pytest.mark.parametrize("lead_s", [100.0, 270.0])
def test_nothing_goes_before_all_agreed_for_that_long(lead_s: float) -> None:
    one = stabilizer(down={"payback_s": 0.0})
    less = Proposal("predictive", 3.0, 4.0, "3/s expected")
    sizes = {float(now): step(one, 8, now, less, lead_s=lead_s).desired for now in range(0, 1200, 15)}
    first = min(now for now, size in sizes.items() if size < 8)
    hold_s = usual_hold_s(DownSettings(), lead_s)
    assert hold_s <= first <= hold_s + 15.0
    assert sizes[first] == 4
