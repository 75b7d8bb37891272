"""Replicas of our own zone are nearer and their traffic is free."""

from __future__ import annotations

from lb.replica import Replica
from lb.routing.form import NO_FORM, Form
from lb.settings import RoutingSettings

FAR_S = 0.02
"""A round trip or two between zones is 2 ms; ten times that makes a price worth keeping traffic local when replicas
are about equal, and never worth a queue."""


class Zone:
    """0.02 s for a replica of another zone, when both zones are known."""

    live = False
    own = True

    def form(self, replica: Replica, settings: RoutingSettings, now: float) -> Form:
        theirs = replica.endpoint.zone
        if settings.zone is None or theirs is None or theirs == settings.zone:
            return NO_FORM
        return (FAR_S, 0.0, 0.0, 0.0, 0.0, 0.0)
