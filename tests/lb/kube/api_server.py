"""A small API server on loopback, whose answers a test scripts: one collection, lists and watches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

PATH = "/api/v1/namespaces/ns/pods"


@dataclass
class Script:
    """An answer other than the ordinary one."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"kind": "Status", "reason": "Scripted", "message": "as the test wants"}'
    hang: bool = False
    cut: bool = False


class ApiServer:
    """`objects` by name, `events` for watches. The next requests are answered from `script`, if there is any."""

    def __init__(self) -> None:
        self.version = 10
        self.objects: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.oldest = 0
        """Watches from before this version are answered with 410."""
        self.script: list[Script] = []
        self.always: Script | None = None
        self.calls: list[tuple[float, str, dict[str, str]]] = []
        """(monotonic time, `GET /path`, headers and query)."""
        self.bodies: list[bytes] = []
        self.page = 1000
        self.raw: list[bytes] = []
        """Lines for the watches that are open, as they are."""
        self.silent = False
        self.ends_watches = False
        self.url = ""

    def put(self, name: str, **fields: Any) -> dict[str, Any]:
        """Write an object and tell the watches."""
        self.version += 1
        item = {"metadata": {"name": name, "namespace": "ns", "resourceVersion": str(self.version)}, **fields}
        self.events.append((self.version, "MODIFIED" if name in self.objects else "ADDED", item))
        self.objects[name] = item
        return item

    def delete(self, name: str) -> None:
        self.version += 1
        item = self.objects.pop(name)
        metadata = {**item["metadata"], "resourceVersion": str(self.version)}
        self.events.append((self.version, "DELETED", {**item, "metadata": metadata}))

    def kinds(self) -> list[str]:
        """`list` or `watch` for each call."""
        return ["watch" if query.get("watch") else "list" for _, _, query in self.calls]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        told = {**request.query, "authorization": request.headers.get("Authorization", "")}
        told["content-type"] = request.headers.get("Content-Type", "")
        self.calls.append((time.monotonic(), f"{request.method} {request.path}", told))
        self.bodies.append(await request.read())
        script = self.script.pop(0) if self.script else self.always
        if script is not None:
            if script.cut and request.transport is not None:
                request.transport.abort()
            if script.hang:
                await asyncio.sleep(60)
            return web.Response(status=script.status, headers=script.headers, body=script.body)
        if request.query.get("watch"):
            return await self._watch(request)
        if request.method != "GET":
            return web.json_response({"kind": "Done"})
        start = int(request.query.get("continue", "0"))
        items = list(self.objects.values())
        metadata = {"resourceVersion": str(self.version)}
        if start + self.page < len(items):
            metadata["continue"] = str(start + self.page)
        return web.json_response({"metadata": metadata, "items": items[start : start + self.page]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        after = int(request.query["resourceVersion"])
        until = time.monotonic() + int(request.query["timeoutSeconds"])
        if after < self.oldest:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": f"too old resource version: {after}"}
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        while time.monotonic() < until and not self.ends_watches:
            if not self.silent:
                for line in self.raw:
                    await response.write(line)
                self.raw.clear()
                for version, kind, item in [event for event in self.events if event[0] > after]:
                    await response.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")
                    after = version
            await asyncio.sleep(0.01)
        return response


@contextlib.asynccontextmanager
async def running(work: Any) -> AsyncIterator[asyncio.Task[Any]]:
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def eventually(holds: Any, within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.01)
