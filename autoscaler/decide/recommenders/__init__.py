"""Sources of proposals by name, in the order in which decisions list them."""

from __future__ import annotations

from collections.abc import Callable

from autoscaler.decide.recommender import Recommender
from autoscaler.decide.recommenders.floor import Floor
from autoscaler.decide.recommenders.predictive import Predictive
from autoscaler.decide.recommenders.reactive import Reactive
from autoscaler.decide.recommenders.saturation import Saturation
from autoscaler.decide.recommenders.schedule import Schedule
from autoscaler.policy.pools import PoolSettings

RECOMMENDERS: dict[str, Callable[[PoolSettings], Recommender]] = {
    "predictive": Predictive,
    "saturation": Saturation,
    "reactive": Reactive,
    "schedule": Schedule,
    "floor": Floor,
}
