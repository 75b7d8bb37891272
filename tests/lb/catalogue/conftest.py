"""Fixtures of the catalogue. The proxy runs on uvloop, as in production."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop

from tests.lb.catalogue.world import World, lb_settings

MakeWorld = Callable[..., Awaitable[World]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def make_world() -> AsyncIterator[MakeWorld]:
    """Starts proxies with scripted replicas; checks the invariants of the catalogue when the row is over."""
    worlds: list[World] = []

    async def make(
        *,
        replicas: int = 1,
        control: bool = True,
        control_headers: str = "",
        upstream_key: str | None = None,
        **sections: Any,
    ) -> World:
        world = World(
            lb_settings(**sections),
            replicas,
            control=control,
            control_headers=control_headers,
            upstream_key=upstream_key,
        )
        worlds.append(world)
        return await world.start()

    yield make
    try:
        for world in worlds:
            await world.check()
    finally:
        for world in worlds:
            await world.close()
    for world in worlds:
        await world.check_closed()
