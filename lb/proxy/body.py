"""A request's body as it arrives: where it ends, what of it was read, and whether it keeps its limits."""

from __future__ import annotations

from lb.errors import ProxyError, Reason
from lb.proxy.head import HeadReader

_FRAMING_BYTES = 16_384
"""Chunk extensions and trailers together (hyper's limit for each)."""
_CHUNK_OVERHEAD_BYTES = 24
"""What a chunk's size line and line ends may take: 16 digits and two CRLFs."""


class BodyReader:
    """Counts a body with a length, or takes a chunked one out of its chunks. Sans I/O; raises ProxyError."""

    __slots__ = (
        "_fed_bytes",
        "_limit_bytes",
        "_pieces",
        "_reader",
        "chunks",
        "complete",
        "length",
        "overrun",
        "received_bytes",
    )

    def __init__(self, length: int, reader: HeadReader, limit_bytes: int) -> None:
        self.length = length
        """Content-Length, or negative for a chunked body."""
        self.received_bytes = 0
        """Of the body itself."""
        self.complete = False
        self.overrun = False
        """Bytes of a further request came behind a chunked body in one read: where it starts is not known."""
        self.chunks = 0
        self._fed_bytes = 0
        self._limit_bytes = limit_bytes
        self._pieces: list[bytes] = []
        self._reader = reader
        if length < 0:
            reader.begin_chunked(self)

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Account for received bytes: returns the body's part of them, and what is behind it."""
        if self.length >= 0:
            missing = self.length - self.received_bytes
            rest = data[missing:]
            data = data[:missing] if rest else data
            self.received_bytes += len(data)
            self.complete = self.received_bytes == self.length
            return data, rest
        self._reader.feed_chunked(data)
        self._fed_bytes += len(data)
        self._check()
        if self.complete:
            self._reader.body = None
        piece = b"".join(self._pieces)
        self._pieces.clear()
        return piece, b""

    def on_data(self, data: bytes) -> None:
        if not self.complete:
            self.received_bytes += len(data)
            self._pieces.append(data)

    def _check(self) -> None:
        if self.received_bytes > self._limit_bytes:
            raise ProxyError(Reason.BODY_TOO_LARGE, 413, "the request body is too large", close=True)
        framing = self._fed_bytes - self.received_bytes - _CHUNK_OVERHEAD_BYTES * self.chunks
        if framing > _FRAMING_BYTES and not self.overrun:
            raise ProxyError(Reason.BAD_REQUEST, 400, "chunk extensions or trailers are too large", close=True)
