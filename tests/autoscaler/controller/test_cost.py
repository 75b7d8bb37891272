"""What a tick costs."""

from __future__ import annotations

import time

from autoscaler.controller import Controller
from autoscaler.decide.observation import PoolDemand
from autoscaler.decide.outlook import Outlook
from autoscaler.fleet import Phase, PoolFleet, ReplicaFact
from autoscaler.policy.pools import CapacitySettings, Mode, PoolSettings, ScalingSettings

POOLS = 50


def test_a_tick_for_fifty_pools_takes_fifty_milliseconds_of_cpu() -> None:
    pools = tuple(
        PoolSettings(name=f"p{index}", mode=Mode.OWN, max_replicas=40, capacity=CapacitySettings(per_replica=1.0))
        for index in range(POOLS)
    )
    controller = Controller(ScalingSettings(pools=pools))
    replicas = tuple(ReplicaFact(f"r{index}", Phase.READY, in_flight=3) for index in range(10))
    costs = []
    for tick in range(150):
        now = 1000.0 + 15.0 * tick
        fleet = {pool.name: PoolFleet(now, replicas) for pool in pools}
        demand = {
            pool.name: PoolDemand(at=now, requests_per_s=7.0 + (tick % 7) / 7.0, backlog_s=1.0, in_flight=9.0)
            for pool in pools
        }
        horizons, levels = (60.0, 300.0, 3600.0), (0.1, 0.5, 0.9, 0.95)
        outlook = Outlook(now, horizons, levels, ((7.0, 8.0, 9.0, 9.5),) * 3)
        began = time.process_time()
        controller.tick(fleet, demand, {pool.name: outlook for pool in pools}, now=now)
        costs.append(time.process_time() - began)
    # The median: a machine that is shared pauses now and then, and the first ticks only fill memories.
    assert sorted(costs[20:])[len(costs[20:]) // 2] < 0.050
