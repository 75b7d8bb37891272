"""Connections that send no request, or never finish one, are ended; others are left alone."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.lb.admin.conftest import MakeAdmin

HEAD_S = 0.25
GET = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def connect(make_admin: MakeAdmin) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    admin = await make_admin(head_s=HEAD_S)
    host, _, port = admin.server.address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head.split(b" ", 2)[1] + b" " + await reader.readexactly(length)


async def test_a_connection_that_says_nothing_is_closed(make_admin: MakeAdmin) -> None:
    reader, writer = await connect(make_admin)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("first", [b"", GET])
async def test_a_head_that_trickles_is_refused_in_time(make_admin: MakeAdmin, first: bytes) -> None:
    reader, writer = await connect(make_admin)
    if first:
        writer.write(first)
        assert (await answer(reader)).startswith(b"200 ")
    began = asyncio.get_running_loop().time()
    trickle = asyncio.create_task(_trickle(writer))
    async with asyncio.timeout(5):
        assert (await answer(reader)) == b"408 "
        with contextlib.suppress(ConnectionResetError):  # for the byte that was on its way
            assert await reader.read() == b""
    assert asyncio.get_running_loop().time() - began >= HEAD_S * 0.9
    trickle.cancel()
    writer.close()


async def _trickle(writer: asyncio.StreamWriter) -> None:
    for byte in GET[:-2] * 100:
        writer.write(bytes((byte,)))
        await asyncio.sleep(HEAD_S / 20)


async def test_an_idle_connection_outlives_the_deadline_of_heads(make_admin: MakeAdmin) -> None:
    reader, writer = await connect(make_admin)
    for pause_s in (0.0, HEAD_S * 2, HEAD_S * 2):
        await asyncio.sleep(pause_s) if pause_s else None
        writer.write(GET)
        assert (await answer(reader)).startswith(b"200 ")
    writer.close()


async def test_pipelined_requests_are_all_answered(make_admin: MakeAdmin) -> None:
    reader, writer = await connect(make_admin)
    writer.write(GET * 5 + GET[:10])
    for _ in range(5):
        assert (await answer(reader)).startswith(b"200 ")
    writer.write(GET[10:12])
    async with asyncio.timeout(5):
        assert (await answer(reader)) == b"408 "
    writer.close()
