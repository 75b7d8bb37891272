"""The root of the policy file."""

from __future__ import annotations

from autoscaler.policy.forecast import ForecastingSettings
from autoscaler.policy.pools import ScalingSettings
from autoscaler.policy.store import StoreSettings
from forecaster.event_settings import CalendarSettings, EventSettings
from lb.settings import LbSettings, Section
from nvml.settings import NvmlSettings


class Policy(Section):
    """A Tidegate policy. Every part may be left out: what is not said has a default that works."""

    lb: LbSettings = LbSettings()
    """The load balancer: where it listens, which replicas it fronts, how it treats requests."""
    scaling: ScalingSettings = ScalingSettings()
    """The controller: which pools it sizes, towards which objective, within which limits."""
    forecast: ForecastingSettings = ForecastingSettings()
    """Demand ahead of time: how far, in which quantiles, and what it may take to compute."""
    events: tuple[EventSettings, ...] = ()
    """Launches, campaigns, holidays: when, how long, and by how much demand will differ from what it would be."""
    calendars: tuple[CalendarSettings, ...] = ()
    """Calendar files (.ics) with more of them; relative names lie beside this file."""
    store: StoreSettings = StoreSettings()
    """Demand history, what was learned and decisions: where they are kept, and how long."""
    gpus: NvmlSettings = NvmlSettings()
    """Reading of this machine's GPUs. Where there is no driver, nothing is read and nothing else changes."""
