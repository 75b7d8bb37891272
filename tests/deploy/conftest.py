"""Every kustomization that somebody may apply, built once."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from tests.deploy.kustomize import Manifest, build

DEPLOY = Path(__file__).parents[2] / "deploy"
OVERLAYS = sorted(path.parent for path in (DEPLOY / "kubernetes" / "overlays").glob("*/kustomization.yaml"))

if os.environ.get("TIDEGATE_SYSTEMD") != "1":
    collect_ignore = ["test_systemd_boot.py"]


@cache
def built(overlay: Path) -> tuple[Manifest, ...]:
    return tuple(build(overlay))


@pytest.fixture(params=OVERLAYS, ids=lambda path: path.name)
def overlay(request: pytest.FixtureRequest) -> Path:
    """The folder of one overlay."""
    path: Path = request.param
    return path


@pytest.fixture
def manifests(overlay: Path) -> tuple[Manifest, ...]:
    """What `kubectl apply -k` of one overlay would send."""
    return built(overlay)
