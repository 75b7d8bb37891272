"""Pods that a disruption budget keeps. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from autoscaler.actuators.kubernetes import objects
from autoscaler.actuators.kubernetes.objects import Object


def selects(selector: Object, labels: Object) -> bool:
    """Whether a label selector picks something with these labels. An empty one picks all."""
    for key, value in objects.part(selector, "matchLabels").items():
        if labels.get(key) != value:
            return False
    return all(_holds(one, labels) for one in objects.items(selector, "matchExpressions"))


def _holds(expression: Object, labels: Object) -> bool:
    key, values = objects.text(expression, "key"), expression.get("values")
    known = values if isinstance(values, list) else []
    match expression.get("operator"):
        case "In":
            return labels.get(key) in known
        case "NotIn":
            return labels.get(key) not in known
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False


def keeps(budgets: Iterable[Object], pod: Object) -> bool:
    """Whether some budget allows no disruption of this pod now. One that was changed since its controller looked at it
    counts as not allowing any."""
    labels = objects.part(pod, "metadata", "labels")
    for budget in budgets:
        selector = objects.part(budget, "spec").get("selector")
        if not isinstance(selector, dict) or not selects(selector, labels):
            continue
        current = objects.count(budget, "status", "observedGeneration") >= objects.count(
            budget, "metadata", "generation"
        )
        if not current or objects.count(budget, "status", "disruptionsAllowed") <= 0:
            return True
    return False
