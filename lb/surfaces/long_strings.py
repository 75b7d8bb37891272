"""A JSON body without its long strings, and what was left out, to be put back where it is wanted.

A parser looks at each byte of a string, 10 us for a prompt of 32 KB. Where a string goes on for long without a quote,
the C library finds its end thirty times as fast, and the parser need not see what lies between.
"""

from __future__ import annotations

from typing import Final

LEAST_BODY_BYTES: Final = 16_384
"""Shorter bodies are parsed as fast as they are shortened."""
_STRIDE_BYTES: Final = 8192
"""Where a stretch is looked for, and the shortest that is worth leaving out: to leave one out costs as much as parsing
10 KB, to find none at each such place a twentieth of parsing what lies between."""
_QUOTE: Final = b'"'
_BACKSLASH: Final = 92
_RUN_BYTES: Final = 64
"""Backslashes before a quote, and bytes behind one, that are looked at."""
_OUTSIDE: Final = b" \t\r\n0123456789+-.eE,:[]{}truefalsn"
"""What stands between strings: a stretch that has anything else in it is inside one."""
_MARK: Final = b"\x7fcut"
_NUMBER_BYTES: Final = 8
MARK_BYTES: Final = len(_MARK) + _NUMBER_BYTES


class Stretch:
    """A part of a body, where it is: a copy of a long prompt would push other things out of the processor's caches."""

    __slots__ = ("start", "stop", "whole")

    def __init__(self, whole: bytes, start: int, stop: int) -> None:
        self.whole = whole
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    def copy(self) -> bytes:
        return self.whole[self.start : self.stop]


class Shortened:
    """`body` is JSON of the same shape; a mark with its number stands for each stretch that was left out."""

    __slots__ = ("_cuts", "_whole", "body", "left")

    def __init__(self, whole: bytes, body: bytes, cuts: list[tuple[int, int]]) -> None:
        self._whole = whole
        self.body = body
        self._cuts = cuts
        self.left = len(cuts)
        """Stretches that were not put back."""

    def restored(self, part: bytes) -> Stretch | None:
        """A part of `body` as it was; None if nothing was left out of it."""
        first_at = part.find(_MARK)
        if first_at < 0:
            return None
        last_at = part.rfind(_MARK)
        first, last = _number(part, first_at), _number(part, last_at)
        self.left -= last - first + 1
        start, stop = self._cuts[first][0], self._cuts[last][1]
        return Stretch(self._whole, start - first_at, stop + len(part) - last_at - MARK_BYTES)


def _number(part: bytes, mark_at: int) -> int:
    return int(part[mark_at + len(_MARK) : mark_at + MARK_BYTES])


def shortened(body: bytes) -> Shortened | None:
    """`body` without stretches of its strings in which there is no quote; None if there are none worth it.

    What is left out begins behind a quote and ends before one, or before the backslashes in front of it, so no escape
    is torn apart. It is in a string because it holds what stands nowhere else in JSON; in a body that is not JSON it
    may be anywhere, and what is left then is no JSON either or says what the body says.
    """
    size = len(body)
    kept: list[bytes] = []
    cuts: list[tuple[int, int]] = []
    done, at = 0, _STRIDE_BYTES
    while at < size:
        end = body.find(_QUOTE, at)
        if end < 0:
            break
        start = body.rfind(_QUOTE, done, at) + 1
        stop = _stop(body, start, end) if start > 0 and end - start >= _STRIDE_BYTES else 0
        if stop <= 0:
            at = max(at + _STRIDE_BYTES, end + 1)
            continue
        kept.append(body[done:start])
        kept.append(_MARK + str(len(cuts)).zfill(_NUMBER_BYTES).encode())
        cuts.append((start, stop))
        done, at = stop, end + _STRIDE_BYTES
    if not cuts:
        return None
    kept.append(body[done:])
    short = b"".join(kept)
    if short.count(_MARK) != len(cuts):
        return None  # the client's own text looks like a mark
    return Shortened(body, short, cuts)


def _stop(body: bytes, start: int, end: int) -> int:
    """Where to stop leaving out what lies between the quotes before `start` and at `end`; 0: it is to stay."""
    if not body[start : start + _RUN_BYTES].translate(None, _OUTSIDE):
        return 0
    if body[end - 1] != _BACKSLASH:
        return end
    run = len(body[end - _RUN_BYTES : end].rstrip(b"\\"))
    return end - _RUN_BYTES + run if run else 0
