"""Whether a chunk of a streamed reply is progress, and how to close an event that was cut off."""

from __future__ import annotations

from lb.surface import StreamFormat


def events_in(chunk: bytes) -> int:
    """Number of stream events in a chunk that are progress of the answer.

    SSE `data:` lines and NDJSON lines count where they begin. Comments (`: ping`), empty keep-alives and Anthropic's
    `event: ping` are none: a runtime that only sends those has stopped generating. The continuation of a line, or bytes
    of another format (audio), count as one. Events are not tokens: one may carry several tokens, or none.
    """
    first = chunk[:1]
    if first == b"d":
        if len(chunk) < 10 and not chunk[5:].strip():
            return 0
        return 1 + chunk.count(b"\ndata:")
    if first == b"{":
        return 1 + chunk.count(b"\n{")
    if first == b":" or first == b"\n" or first == b"\r" or not chunk:
        return chunk.count(b"\ndata:") or chunk.count(b"\n{")
    events = chunk.count(b"\ndata:") or chunk.count(b"\n{")
    if first == b"e" and b"ping" in chunk:
        return max(0, events - chunk.count(b"event: ping"))
    return events or 1


def closing(tail: bytes, stream_format: StreamFormat) -> bytes:
    """Bytes that bring a stream that ends in `tail` to the border of an event, so that an error event can follow."""
    if not tail or stream_format is StreamFormat.NONE:
        return b""
    if stream_format is StreamFormat.NDJSON:
        return b"" if tail.endswith(b"\n") else b"\n"
    if tail.endswith((b"\n\n", b"\r\n\r\n")):
        return b""
    return b"\n" if tail.endswith(b"\n") else b"\n\n"
