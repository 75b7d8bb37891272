"""Reads a stream to whatever end it has."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass
class Stream:
    """What came, and how it ended."""

    status: int = 0
    events: list[Any] = field(default_factory=list)
    """Parsed data of each event but `[DONE]`."""
    done: bool = False
    """`[DONE]` came."""
    broken: str = ""
    """The transfer ended in the middle; why."""
    raw: bytes = b""

    @property
    def finish_reason(self) -> str | None:
        """The API's own end (`stop`, `length`, ...)."""
        for event in reversed(self.events):
            for choice in event.get("choices") or ():
                if choice.get("finish_reason"):
                    return str(choice["finish_reason"])
        return None

    @property
    def error(self) -> Any:
        """An error in the middle of the stream, as the SDK sees it."""
        return next((event["error"] for event in self.events if event.get("error")), None)

    @property
    def clean(self) -> bool:
        """What an SDK takes for a complete answer."""
        whole = self.status == 200 and not self.broken and self.error is None
        return whole and self.done and self.finish_reason in ("stop", "length")


async def read_stream(response: aiohttp.ClientResponse, *, events: int | None = None) -> Stream:
    """Read server-sent events to the end, or only the first `events` of them."""
    stream = Stream(response.status)
    buffer = b""
    try:
        async for part in response.content.iter_any():
            stream.raw += part
            buffer += part
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                _line(stream, line.strip())
            if events is not None and len(stream.events) >= events:
                break
    except (aiohttp.ClientError, ConnectionError) as error:
        stream.broken = f"{type(error).__name__}: {error}"
    return stream


def _line(stream: Stream, line: bytes) -> None:
    if not line.startswith(b"data:"):
        return
    data = line.removeprefix(b"data:").strip()
    if data == b"[DONE]":
        stream.done = True
    else:
        stream.events.append(json.loads(data))
