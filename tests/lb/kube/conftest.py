"""Fixtures around the small API server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from lb.kube import Explicit, KubeApi
from tests.lb.kube.api_server import ApiServer


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    server = ApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
def access(server: ApiServer, tmp_path: Path) -> Explicit:
    token = tmp_path / "token"
    token.write_text("first-token\n")
    return Explicit(server.url, Path(__file__).parents[2] / "data" / "tls" / "localhost.pem", token)


@pytest.fixture
async def api(access: Explicit) -> AsyncIterator[KubeApi]:
    api = KubeApi(access, deadline_s=2.0)
    yield api
    await api.close()
