"""Bad weather: while readings are missing or nonsense, Tidegate lowers nothing; whoever takes them for zero does."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from autoscaler.sim.disturbance import Disturbed
from autoscaler.sim.lab import Lab
from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policy import Reading
from autoscaler.sim.pool_model import plain
from autoscaler.sim.replica_model import ReplicaModel
from autoscaler.sim.roster import Roster
from autoscaler.sim.series import read_trace
from autoscaler.sim.start_up import SCENARIOS
from autoscaler.sim.workload import Lengths, Load

TRACE = Path(__file__).parents[2] / "data" / "traces" / "servegen_r1_sample.csv.gz"


class Watched(Disturbed):
    """Notes by how much the fleet was lowered while nothing could be known."""

    lowered = 0

    def tick(self, reading: Reading, roster: Roster) -> None:
        before = roster.wanted
        super().tick(reading, roster)
        if self.weather(reading.now):
            self.lowered += max(0, before - roster.wanted)


@pytest.mark.parametrize(("name", "lowers"), [("tidegate", False), ("hpa", False), ("keda", True)])
def test_who_lowers_in_bad_weather(name: str, lowers: bool) -> None:
    with gzip.open(TRACE, "rt") as file:
        lengths = Lengths.of(read_trace(file))
    intensity = 13.0 + 4.0 * np.sin(np.arange(86_400) / 5000.0)
    load = Load(np.random.default_rng(1).poisson(intensity), 0, 0.0, intensity, 17.0)
    setting = Setting(2.6, 43.0, 64, 7, 9, SCENARIOS["node"], load, 0.01)
    lab = Lab(plain(ReplicaModel(), lengths), lengths, load, setting, seed=1)
    # Readings that are not a number reach policies that do not check them as errors: only missing ones are tried here.
    watched = Watched(lab.policy(name), seed=3)
    if name != "tidegate":
        watched.weather = lambda now: "outage" if 40_000.0 <= now < 40_600.0 else ""  # type: ignore[method-assign]
    score = lab.fast(watched)
    assert (watched.lowered > 0) is lowers
    assert score.killed == 0
