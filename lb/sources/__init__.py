"""Kinds of sources and how each is made from the policy. Adding one is a file here, a line below and a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lb.clock import Clock
from lb.runtimes import RUNTIMES
from lb.settings import LbSettings
from lb.source import Source
from lb.sources.dns import DnsRecords
from lb.sources.file import ReplicaFile
from lb.sources.static import StaticBackends

Build = Callable[[LbSettings, Path, Clock], list[Source]]


def _kubernetes(lb: LbSettings, directory: Path, clock: Clock) -> list[Source]:
    """Imported only where it is asked for: its client takes half a second to load."""
    if not lb.kubernetes:
        return []
    from lb.sources.kubernetes import KubernetesReplicas

    return [KubernetesReplicas(settings, directory, clock, runtimes=RUNTIMES) for settings in lb.kubernetes]


SOURCES: dict[str, Build] = {
    "static": lambda lb, directory, clock: [StaticBackends(lb.backends, clock)] if lb.backends else [],
    "file": lambda lb, directory, clock: [ReplicaFile(settings, directory, clock) for settings in lb.files],
    "dns": lambda lb, directory, clock: [DnsRecords(settings, clock) for settings in lb.dns],
    "kubernetes": _kubernetes,
}


def build_sources(settings: LbSettings, directory: Path, clock: Clock) -> list[Source]:
    """Every source that the settings ask for. Relative file names are looked up in `directory`."""
    return [source for build in SOURCES.values() for source in build(settings, directory, clock)]
