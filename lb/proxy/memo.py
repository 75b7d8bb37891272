"""Heads seen before.

On one connection, and between clients of one kind, heads repeat to the byte but for the digits of Content-Length; so
do those of replies within a second. What was parsed, judged and joined once is kept under the head's bytes without
those digits, and a hit costs a hash instead of a parse. Nothing that failed a check is ever kept.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

_NAMES = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_NAME_BYTES: Final = 18
_LENGTH_DIGITS: Final = 15
NO_LENGTH: Final = -1

Kept = TypeVar("Kept")


def measured(raw: bytes, end: int) -> tuple[bytes, int]:
    """The key of the head `raw[:end + 4]` and the length that was cut out of it.

    NO_LENGTH: there is no Content-Length in its usual spelling, the key is the whole head.
    """
    start, stop = _digits(raw, end)
    if start < 0:
        return raw[: end + 4], NO_LENGTH
    return raw[:start] + raw[stop : end + 4], int(raw[start:stop])


def _digits(raw: bytes, end: int) -> tuple[int, int]:
    """Where the digits of the Content-Length are; negative: there are none in the usual spelling."""
    at = raw.find(_NAMES[0], 0, end)
    if at < 0:
        at = raw.find(_NAMES[1], 0, end)
    if at >= 0:
        start = at + _NAME_BYTES
        stop = raw.find(b"\r\n", start)
        digits = raw[start:stop]
        if digits.isdigit() and len(digits) <= _LENGTH_DIGITS:
            return start, stop
    return -1, -1


class Memo(Generic[Kept]):
    """A bounded dict that forgets everything when it is full: heads that never repeat cost no bookkeeping."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._kept: dict[bytes, Kept] = {}
        self.epoch = 0
        """Changes when what was kept means nothing any more."""
        self.get = self._kept.get

    def keep(self, key: bytes, value: Kept) -> None:
        if len(self._kept) >= self._entries:
            self._kept.clear()
        self._kept[key] = value

    def clear(self) -> None:
        self._kept.clear()
        self.epoch += 1

    def __len__(self) -> int:
        return len(self._kept)


class Latest(Generic[Kept]):
    """The head that came last, for comparison with the next: half the time of finding its key and looking that up."""

    __slots__ = ("_prefix", "_start", "_suffix", "kept", "length")

    def __init__(self, raw: bytes, end: int, kept: Kept) -> None:
        """`raw[:end + 4]` is a head with a length, `kept` what it means."""
        start, stop = _digits(raw, end)
        self._start = start
        self._prefix = raw[:start]
        self._suffix = raw[stop : end + 4]
        self.kept = kept
        self.length = NO_LENGTH

    def match(self, raw: bytes) -> int:
        """Where the body begins, if `raw` begins with the same head but for its `length`, which is then set; else -1.

        What matches has the key of the head that was kept: the same bytes before and behind the digits.
        """
        if not raw.startswith(self._prefix):
            return -1
        start = self._start
        stop = raw.find(b"\r", start, start + _LENGTH_DIGITS + 1)
        if stop < 0 or not raw.startswith(self._suffix, stop):
            return -1
        digits = raw[start:stop]
        if not digits.isdigit():
            return -1
        self.length = int(digits)
        return stop + len(self._suffix)


class Finder(Generic[Kept]):
    """Looks heads up for one client, or for all connections to one replica: first at the one that came last."""

    __slots__ = ("_epoch", "_latest", "_memo", "body_at", "key", "length")

    def __init__(self, memo: Memo[Kept]) -> None:
        self._memo = memo
        self._latest: Latest[Kept] | None = None
        self._epoch = 0
        self.body_at = -1
        """Where the body begins; negative: the head is not complete."""
        self.length = NO_LENGTH
        self.key = b""
        """Under which a head that was not found is to be kept."""

    def find(self, raw: bytes) -> Kept | None:
        """What was kept of the head that `raw` begins with. Sets `body_at` and `length`, and `key` if it is None."""
        latest, memo = self._latest, self._memo
        if latest is not None and self._epoch == memo.epoch:
            self.body_at = latest.match(raw)
            if self.body_at > 0:
                self.length = latest.length
                return latest.kept
        end = raw.find(b"\r\n\r\n")
        if end < 0:
            self.body_at = -1
            return None
        self.body_at = end + 4
        self.key, self.length = measured(raw, end)
        kept = memo.get(self.key)
        if kept is not None and self.length >= 0:
            self._latest, self._epoch = Latest(raw, end, kept), memo.epoch
        return kept
