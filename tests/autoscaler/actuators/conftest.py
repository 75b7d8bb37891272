"""Worlds that are ended whatever a test does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.autoscaler.actuators.worlds import WORLDS, World


@pytest.fixture(params=sorted(WORLDS))
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made = WORLDS[request.param](tmp_path)
    try:
        await made.open()
        yield made
    finally:
        await made.close()
