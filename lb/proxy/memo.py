"""Heads seen before.

On one connection, and between clients of one kind, heads repeat to the byte but for the digits of Content-Length; so
do those of replies within a second. What was parsed, judged and joined once is kept under the head's bytes without
those digits, and a hit costs a hash instead of a parse. Nothing that failed a check is ever kept.
"""

from __future__ import annotations

from typing import Generic, TypeVar

_NAMES = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_NAME_BYTES = 18
_LENGTH_DIGITS = 15
NO_LENGTH = -1

Kept = TypeVar("Kept")


def measured(raw: bytes, end: int) -> tuple[bytes, int]:
    """The key of the head `raw[:end + 4]` and the length that was cut out of it.

    NO_LENGTH: there is no Content-Length in its usual spelling, the key is the whole head.
    """
    at = raw.find(_NAMES[0], 0, end)
    if at < 0:
        at = raw.find(_NAMES[1], 0, end)
    if at >= 0:
        start = at + _NAME_BYTES
        stop = raw.find(b"\r\n", start)
        digits = raw[start:stop]
        if digits.isdigit() and len(digits) <= _LENGTH_DIGITS:
            return raw[:start] + raw[stop : end + 4], int(digits)
    return raw[: end + 4], NO_LENGTH


class Memo(Generic[Kept]):
    """A bounded dict that forgets everything when it is full: heads that never repeat cost no bookkeeping."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._kept: dict[bytes, Kept] = {}
        self.get = self._kept.get

    def keep(self, key: bytes, value: Kept) -> None:
        if len(self._kept) >= self._entries:
            self._kept.clear()
        self._kept[key] = value

    def clear(self) -> None:
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)
