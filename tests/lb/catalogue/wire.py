"""HTTP/1.1 as the catalogue reads it: strictly, and without the parser that the proxy uses.

Whatever reaches a replica is read by `RequestReader`, which writes down every byte that a replica could read in two
ways. Whatever reaches a client is read by `read_response`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

_REQUEST_LINE = re.compile(rb"([A-Z]+) (/[\x21-\x22\x24-\x7e]*|\*) HTTP/1\.1")
_FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*"
    rb"([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?[ \t]*"
)
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,16}")
_HOST = re.compile(rb"[A-Za-z0-9._~-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?")
SENSITIVE = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "te", "trailer",
        "authorization", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "forwarded",
        "x-api-key", "api-key",
    }
)  # fmt: skip
"""Names that decide framing, or who is believed to ask."""
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "proxy-authorization"}
)


@dataclass
class Message:
    """What requests and responses share."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    raw_head: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        return values[0] if values else None


@dataclass
class Request(Message):
    method: str = ""
    target: str = ""
    chunked: bool = False


@dataclass
class Response(Message):
    status: int = 0
    reason: str = ""
    complete: bool = True
    """The framing said that it ended, and it did."""
    chunked: bool = False
    close: bool = False
    chunks: list[bytes] = field(default_factory=list)


class DirtyError(Exception):
    """Bytes reached a replica that could be read in more than one way."""


Read = Callable[[int], Awaitable[bytes]]
"""Next bytes, at most so many; empty at the end."""


class Source:
    """Buffered reading from a stream of bytes."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.buffer = b""
        self.ended = False

    async def more(self) -> bool:
        data = await self._read(65_536)
        self.ended = not data
        self.buffer += data
        return bool(data)

    async def until(self, mark: bytes, limit: int = 1 << 20) -> bytes | None:
        """Bytes up to and with `mark`; None if the stream ends before."""
        while mark not in self.buffer:
            if len(self.buffer) > limit or not await self.more():
                return None
        head, _, self.buffer = self.buffer.partition(mark)
        return head + mark

    async def exactly(self, count: int) -> bytes:
        """That many bytes, or fewer at the end of the stream."""
        while len(self.buffer) < count:
            if not await self.more():
                break
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data


def _head(head: bytes) -> list[tuple[str, str]]:
    fields = []
    for line in head.split(b"\r\n")[1:-2]:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise DirtyError(f"header line {line!r}")
        fields.append((found[1].decode("ascii").lower(), (found[2] or b"").decode("latin-1")))
    return fields


def check_request_head(head: bytes) -> Request:
    """Parse a request's head; raises DirtyError on anything that another parser might read differently."""
    found = _REQUEST_LINE.fullmatch(head.partition(b"\r\n")[0])
    if found is None:
        raise DirtyError(f"request line of {head[:200]!r}")
    if head.count(b"\r") != head.count(b"\n") or head.count(b"\r\n") != head.count(b"\n"):
        raise DirtyError(f"bare CR or LF in {head[:200]!r}")
    request = Request(_head(head), b"", head, found[1].decode(), found[2].decode())
    hosts, lengths, encodings = (request.all(name) for name in ("host", "content-length", "transfer-encoding"))
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0].encode("latin-1")):
        raise DirtyError(f"Host is {hosts}")
    if len(lengths) > 1 or (lengths and not re.fullmatch(r"[0-9]{1,18}", lengths[0])):
        raise DirtyError(f"Content-Length is {lengths}")
    if encodings and (encodings != ["chunked"] or lengths):
        raise DirtyError(f"Transfer-Encoding is {encodings} with Content-Length {lengths}")
    for name, _ in request.headers:
        if "_" in name and name.replace("_", "-") in SENSITIVE:
            raise DirtyError(f"look-alike {name}")
        if name in HOP_BY_HOP and not (name in ("connection", "upgrade") and request.get("upgrade") == "websocket"):
            raise DirtyError(f"hop-by-hop header {name}")
    request.chunked = bool(encodings)
    return request


async def read_request(source: Source) -> Request | None:
    """The next request on a replica's connection; None at its end. Raises DirtyError."""
    head = await source.until(b"\r\n\r\n")
    if head is None:
        if source.buffer:
            raise DirtyError(f"bytes that are no request: {source.buffer[:200]!r}")
        return None
    request = check_request_head(head)
    if request.chunked:
        body = await _read_chunked_body(source)
        if body is None:
            return None
        request.body = body
    elif (length := request.get("content-length")) is not None:
        request.body = await source.exactly(int(length))
        if len(request.body) < int(length):
            return None  # given up half-way, and the connection with it
    return request


async def _read_chunked_body(source: Source) -> bytes | None:
    """None: the connection ended before the body did."""
    body = b""
    while True:
        line = await source.until(b"\r\n")
        if line is None:
            return None
        if _CHUNK_SIZE.fullmatch(line[:-2]) is None:
            raise DirtyError(f"chunk size line {line[:100]!r}")
        size = int(line, 16)
        data = await source.exactly(size + 2)
        if not data.endswith(b"\r\n") or len(data) != size + 2:
            if source.ended:
                return None
            raise DirtyError("a chunk longer than its size")
        if size == 0:
            return body
        body += data[:-2]


async def read_response(source: Source, *, head_only: bool = False) -> Response | None:
    """The next response on a client's connection, interim ones skipped; None if there is none.

    `complete` is False when the connection ended before the framing did.
    """
    while True:
        head = await source.until(b"\r\n\r\n")
        if head is None:
            assert not source.buffer, f"half a response head: {source.buffer[:200]!r}"
            return None
        line = re.fullmatch(rb"HTTP/1\.1 (\d{3}) ([\t\x20-\x7e]*)", head.partition(b"\r\n")[0])
        assert line is not None, f"status line of {head[:200]!r}"
        response = Response(_head(head), b"", head, int(line[1]), line[2].decode())
        if response.status >= 200 or response.status == 101:
            break
    response.close = (response.get("connection") or "").lower() == "close"
    encodings, lengths = response.all("transfer-encoding"), response.all("content-length")
    assert not (encodings and lengths), f"both framings: {head!r}"
    assert len(encodings) <= 1, f"two framings: {head!r}"
    assert len(lengths) <= 1, f"two framings: {head!r}"
    if head_only or response.status in (101, 204, 304):
        return response
    if encodings:
        assert encodings == ["chunked"]
        response.chunked = True
        await _read_chunked_response(source, response)
    elif lengths:
        response.body = await source.exactly(int(lengths[0]))
        response.complete = len(response.body) == int(lengths[0])
    else:
        while await source.more():
            pass
        response.body, source.buffer = source.buffer, b""
    return response


async def _read_chunked_response(source: Source, response: Response) -> None:
    response.complete = False
    while True:
        line = await source.until(b"\r\n")
        if line is None:
            response.body += b""
            return
        size = int(line[:-2], 16)
        data = await source.exactly(size + 2)
        if len(data) < size + 2:
            response.body += data[:size]
            return
        assert data.endswith(b"\r\n")
        if size == 0:
            response.complete = True
            return
        response.chunks.append(data[:-2])
        response.body += data[:-2]
