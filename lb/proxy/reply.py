"""Bytes of replies: heads passed on, and answers of our own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus} | {499: b"Client Closed Request"}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def reply_head(
    status: int, reason: bytes, lines: Sequence[bytes], framing: bytes, request_id: str, close: bool
) -> bytes:
    """The head of a replica's reply for the client. `framing` is its length or transfer-encoding line, or empty."""
    return b"HTTP/1.1 %d %b\r\n%b%bx-request-id: %b\r\n%b\r\n" % (
        status,
        reason,
        b"".join(lines),
        framing,
        request_id.encode(),
        b"connection: close\r\n" if close else b"",
    )


def own_reply(
    status: int,
    body: bytes,
    request_id: str = "",
    close: bool = False,
    retry_after_s: float | None = None,
    head_only: bool = False,
    *,
    headers: bytes = b"",
    content_type: bytes = b"application/json",
) -> bytes:
    """A whole reply of Tidegate's own. `headers` are further lines, each with CRLF."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, b"Unknown")), headers]
    if status != HTTPStatus.NO_CONTENT:
        lines.append(b"content-type: %b\r\ncontent-length: %d\r\n" % (content_type, len(body)))
    if retry_after_s is not None:
        lines.append(b"retry-after: %d\r\n" % max(1, math.ceil(retry_after_s)))
    if status == HTTPStatus.UNAUTHORIZED:
        lines.append(b"www-authenticate: Bearer\r\n")
    if request_id:
        lines.append(b"x-request-id: %b\r\n" % request_id.encode())
    if close:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    if not head_only:
        lines.append(body)
    return b"".join(lines)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; nothing for no data, as an empty chunk would be the end."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
