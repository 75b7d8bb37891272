"""Recorded replies of real runtimes (tests/data/fixtures)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"


def dechunked(body: bytes) -> bytes:
    """The body inside a chunked framing, as far as it came; a body without framing unchanged."""
    parts, rest = [], body
    while rest:
        size, found, after = rest.partition(b"\r\n")
        try:
            length = int(size, 16)
        except ValueError:
            return b"".join(parts) if parts else body
        if not found or length == 0:
            break
        parts.append(after[:length])
        rest = after[length:].lstrip(b"\r\n")
    return b"".join(parts)


@pytest.fixture
def recording() -> Callable[[str], bytes]:
    """`recording("vllm-0.32/chat_stream")`: the body of a recorded reply."""

    def read(name: str) -> bytes:
        head, found, body = (FIXTURES / f"{name}.txt").read_bytes().partition(b"\r\n\r\n")
        return dechunked(body) if found else head

    return read
