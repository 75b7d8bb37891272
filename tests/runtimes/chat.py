"""Chat requests as every language model here takes them."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from tests.runtimes.balancer import Balancer
from tests.runtimes.servers import MODEL
from tests.runtimes.streams import Stream, read_stream

CHAT = "/v1/chat/completions"


def chat(tokens: int, *, stream: bool = False, text: str = "tell me of the sea", **more: Any) -> dict[str, Any]:
    """A request for just so many tokens; made-up weights would end an answer anywhere."""
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "ignore_eos": True,
        **more,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


async def stream_whole(balancer: Balancer, tokens: int) -> Stream:
    """A streamed answer to its end, whatever that is."""
    async with balancer.open(CHAT, chat(tokens, stream=True)) as response:
        return await read_stream(response)


async def strangers(url: str, tokens: int, count: int) -> list[asyncio.Task[None]]:
    """Requests that do not come through the balancer; to be cancelled by the test."""

    async def ask() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.post(url + CHAT, json=chat(tokens, stream=True)) as answer,
        ):
            async for _ in answer.content.iter_any():
                pass

    return [asyncio.create_task(ask()) for _ in range(count)]


async def dismissed(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel and wait."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
