"""Worlds that are ended whatever a test does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.autoscaler.actuators.worlds import WORLDS, Make, ProcessWorld, World


@pytest.fixture(params=sorted(WORLDS))
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made = WORLDS[request.param](tmp_path)
    try:
        await made.open()
        yield made
    finally:
        await made.close()


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    worlds: list[ProcessWorld] = []

    def build(mode: str = "ready", **settings: object) -> ProcessWorld:
        worlds.append(ProcessWorld(tmp_path, mode, **settings))
        return worlds[-1]

    yield build
    for world in worlds:
        await world.close()
