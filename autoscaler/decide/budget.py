"""Bounds over all pools together: GPUs, money an hour, watts. Only additions are trimmed; nothing is stopped for it."""

from __future__ import annotations

from dataclasses import dataclass

from autoscaler.decide.mix import price
from autoscaler.policy.pools import BudgetSettings, KindSettings

_EDGE = 1e-9


@dataclass(slots=True)
class Spent:
    """What all replicas take that exist, start or leave."""

    gpus: int = 0
    money_per_hour: float = 0.0
    watts: float = 0.0

    def add(self, kind: KindSettings, count: int = 1) -> None:
        self.gpus += count * kind.gpus
        self.money_per_hour += count * price(kind)
        self.watts += count * kind.watts


def refusal(budget: BudgetSettings, spent: Spent, kind: KindSettings) -> str:
    """Which bound one replica more of this kind would break; empty: none."""
    if budget.gpus is not None and spent.gpus + kind.gpus > budget.gpus:
        return f"budget of {budget.gpus} GPUs"
    if budget.money_per_hour is not None and spent.money_per_hour + price(kind) > budget.money_per_hour + _EDGE:
        return f"budget of {budget.money_per_hour:g} an hour"
    if budget.watts is not None and spent.watts + kind.watts > budget.watts + _EDGE:
        return f"budget of {budget.watts:g} W"
    return ""
