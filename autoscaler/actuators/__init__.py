"""Kinds of actuators and how each is made from a pool's settings. Adding one is a file here, a line below, a section in
`autoscaler.policy.actuators`, a row in the README, and a place in the contract suite."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

from autoscaler.actuator import Actuator, Observed
from autoscaler.actuators.dry_run import DryRun
from autoscaler.actuators.exec import ExecActuator
from autoscaler.actuators.process import ProcessActuator
from autoscaler.actuators.systemd import SystemdActuator
from autoscaler.actuators.webhook import WebhookActuator
from autoscaler.local.site import Site
from autoscaler.policy.actuators import ExecSettings, ProcessSettings, SystemdSettings, WebhookSettings
from autoscaler.policy.kubernetes import KubernetesSettings
from autoscaler.policy.pools import PoolSettings
from lb.clock import SYSTEM_CLOCK, Clock
from lb.secrets import resolve
from nvml.sample import NodeSnapshot


def _nothing(_pool: PoolSettings) -> Iterable[Observed]:
    return ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the daemon hands to every actuator."""

    state_directory: Path
    """Where local replicas are remembered. All pools of a machine share it, and it outlives the process."""
    directory: Path = field(default_factory=Path)
    """The policy file's, where relative paths and `file:` secrets are looked up."""
    clock: Clock = SYSTEM_CLOCK
    gpus: Callable[[], NodeSnapshot | None] = lambda: None
    """The latest reading of this machine's cards (`Sampler.latest`)."""
    reported: Callable[[PoolSettings], Iterable[Observed]] = _nothing
    """What the balancer knows of a pool's replicas, for an actuator that runs none itself."""
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    leads: Callable[[], bool] = lambda: True
    """Whether this controller may act at this instant, for actuators that others of its kind share."""


def _dry_run(pool: PoolSettings, around: Surroundings) -> Actuator:
    return DryRun(pool.name, around.clock, lambda: around.reported(pool))


def _process(pool: PoolSettings, around: Surroundings) -> Actuator:
    settings = pool.actuator
    assert isinstance(settings, ProcessSettings)
    return ProcessActuator(settings, _site(pool, settings, around), around.directory, around.environ)


def _site(pool: PoolSettings, settings: ProcessSettings | SystemdSettings, around: Surroundings) -> Site:
    return Site(pool, settings, around.state_directory, around.clock, around.gpus)


def _exec(pool: PoolSettings, around: Surroundings) -> Actuator:
    settings = pool.actuator
    assert isinstance(settings, ExecSettings)
    return ExecActuator(pool.name, settings, around.directory, around.environ, around.clock)


def _webhook(pool: PoolSettings, around: Surroundings) -> Actuator:
    settings = pool.actuator
    assert isinstance(settings, WebhookSettings)
    token = None if settings.token is None else resolve(settings.token, around.directory, around.environ)
    return WebhookActuator(pool.name, settings, token, around.clock, epoch=token_hex(8))


def _systemd(pool: PoolSettings, around: Surroundings) -> Actuator:
    settings = pool.actuator
    assert isinstance(settings, SystemdSettings)
    return SystemdActuator(settings, _site(pool, settings, around))


def _kubernetes(pool: PoolSettings, around: Surroundings) -> Actuator:
    settings = pool.actuator
    assert isinstance(settings, KubernetesSettings)
    # Its client takes half a second to import, which all who have no such pool are spared.
    from autoscaler.actuators.kubernetes import build

    return build(pool, settings, around.clock, around.leads, around.directory)


Build = Callable[[PoolSettings, Surroundings], Actuator]

ACTUATORS: dict[str, Build] = {
    "dry_run": _dry_run,
    "process": _process,
    "systemd": _systemd,
    "exec": _exec,
    "webhook": _webhook,
    "kubernetes": _kubernetes,
}


def build_actuator(pool: PoolSettings, around: Surroundings) -> Actuator:
    """The actuator that a pool's settings ask for. Raises SettingsError if a secret is missing."""
    return ACTUATORS[pool.actuator.type](pool, around)
