"""Policies for the plant by name: Tidegate's own, and those that it is compared with."""

from __future__ import annotations

from collections.abc import Callable

from autoscaler.sim.policies.aggressive import Aggressive
from autoscaler.sim.policies.hpa import Hpa
from autoscaler.sim.policies.keda import Keda
from autoscaler.sim.policies.kpa import Kpa
from autoscaler.sim.policies.maximum import Maximum
from autoscaler.sim.policies.predictive import Predictive
from autoscaler.sim.policies.ray import Ray
from autoscaler.sim.policies.seasonal import Seasonal
from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policy import Policy

BASELINES: dict[str, Callable[[float, Setting], Policy]] = {
    "max": Maximum,
    "hpa": Hpa,
    "keda": Keda,
    "kpa": Kpa,
    "ray": Ray,
    "seasonal": Seasonal,
    "predictive": Predictive,
    "aggressive": Aggressive,
}
"""By name; made from a knob and what every policy may know of the plant. The knob is the share of a replica's capacity
that the policy aims to use: less is safer and dearer."""
REACTIVE = ("hpa", "keda", "kpa", "ray")
"""Those that know only the present."""
