"""A small DNS server on loopback, UDP and TCP, whose answers a test changes while it runs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest


class DnsServer:
    """Answers from `records`: (name, type) to record texts. `rcode` or `silent` make every answer a failure."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.ttl = 30
        self.rcode: dns.rcode.Rcode | None = None
        self.silent = False
        self.queries: list[tuple[str, str]] = []
        self.tcp_queries = 0
        self.address = ""

    def answer(self, wire: bytes, *, udp: bool) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text().rstrip("."), dns.rdatatype.to_text(question.rdtype)
        self.queries.append((name, kind))
        if self.silent:
            return None
        response = dns.message.make_response(query)
        texts = self.records.get((name, kind))
        known = any(known_name == name for known_name, _ in self.records)
        if self.rcode is not None:
            response.set_rcode(self.rcode)
        elif texts:
            response.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, *texts))
        elif not known:
            response.set_rcode(dns.rcode.NXDOMAIN)
        data = response.to_wire(max_size=65_535)
        if udp and len(data) > 1232:
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC
            return short.to_wire()
        return data

    async def tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tcp_queries += 1
        size = int.from_bytes(await reader.readexactly(2), "big")
        data = self.answer(await reader.readexactly(size), udp=False)
        if data is not None:
            writer.write(len(data).to_bytes(2, "big") + data)
        writer.close()
        await writer.wait_closed()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.answer(data, udp=True)
        if answer is not None:
            self._transport.sendto(answer, addr)  # type: ignore[attr-defined]


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    server = DnsServer()
    loop = asyncio.get_running_loop()
    tcp = await asyncio.start_server(server.tcp, "127.0.0.1", 0)
    port = tcp.sockets[0].getsockname()[1]
    server.address = f"127.0.0.1:{port}"
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    udp.bind(("127.0.0.1", port))
    transport, _ = await loop.create_datagram_endpoint(lambda: _Udp(server), sock=udp)
    try:
        yield server
    finally:
        transport.close()
        tcp.close()
        await tcp.wait_closed()
