"""Answers without a model, as cheap as can be: what stands in front of the mock is what is being measured."""

from __future__ import annotations

import asyncio
import re

import msgspec

from autoscaler.mock.connection import Connection, Request
from autoscaler.mock.openai import Body, ReplyWriter, usage, words

_STREAM = re.compile(rb'"stream"\s*:\s*true')
_LIMIT = re.compile(rb'"max_(?:completion_)?tokens"\s*:\s*(\d+)')
_LENGTH = re.compile(rb'"mock_output_tokens"\s*:\s*(\d+)')
_UNARY_TOKENS = 32
_PHASES = 8
"""Streams are served in so many groups within an interval, so that not all of them speak in the same millisecond."""


class _Paced:
    """A stream that gets one chunk at every turn."""

    __slots__ = ("connection", "gone", "left")

    def __init__(self, connection: Connection, left: int) -> None:
        self.connection = connection
        self.left = left
        self.gone = False

    def leave(self) -> None:
        self.gone = True


class InstantReplies:
    """Canned bytes: a unary answer at once, or a stream at a fixed pace, a chunk for each token that is asked for."""

    def __init__(self, model: str, interval_s: float) -> None:
        writer = ReplyWriter(Body(), chat=True, reply_id="instant", model=model)
        answer = writer.unary(_UNARY_TOKENS, by_limit=True, used=usage(300, _UNARY_TOKENS, 0))
        head = b"HTTP/1.1 200 OK\r\nserver: tidegate-mock\r\ncontent-type: application/json\r\n"
        self._unary = b"%bcontent-length: %d\r\n\r\n%b" % (head, len(answer), answer)
        self._first = self._framed(writer.stream_head() + writer.stream_tokens(1, finish=False, by_limit=False))
        self._token = self._framed(writer.stream_tokens(1, finish=False, by_limit=False))
        last = writer.stream_tokens(1, finish=True, by_limit=True) + writer.stream_end(usage(300, 100, 0))
        self._last = self._framed(last)
        self.interval_s = interval_s
        self.late_s_max = 0.0
        self._phases: list[list[_Paced]] = [[] for _ in range(_PHASES)]
        self._next_phase = 0
        self._turn = 0
        self._loop = asyncio.get_running_loop()
        self._timer_at = 0.0
        self._running = False

    @property
    def streams(self) -> int:
        """Open streams."""
        return sum(len(phase) for phase in self._phases)

    def handle(self, connection: Connection, request: Request) -> None:
        if _STREAM.search(request.body) is None:
            connection.write(self._unary)
            connection.done()
            return
        limit = _LENGTH.search(request.body) or _LIMIT.search(request.body)
        stream = _Paced(connection, (int(limit[1]) if limit else 100) - 1)
        connection.on_gone = stream.leave
        connection.begin_stream()
        connection.write(self._first)
        self._phases[self._next_phase].append(stream)
        self._next_phase = (self._next_phase + 1) % _PHASES
        if not self._running:
            self._running = True
            self._timer_at = self._loop.time()
            self._arm()

    def _arm(self) -> None:
        self._timer_at = max(self._timer_at + self.interval_s / _PHASES, self._loop.time() - self.interval_s)
        self._loop.call_at(self._timer_at, self._speak)

    def _speak(self) -> None:
        self.late_s_max = max(self.late_s_max, self._loop.time() - self._timer_at)
        phase = self._phases[self._turn]
        kept: list[_Paced] = []
        for stream in phase:
            if stream.gone:
                continue
            stream.left -= 1
            if stream.left > 0:
                stream.connection.write(self._token)
                kept.append(stream)
            else:
                stream.connection.write(self._last)
                stream.connection.end_stream()
        # A stream that began while this ran was appended to the list that is replaced here.
        kept.extend(phase[len(phase) :])
        self._phases[self._turn] = kept
        self._turn = (self._turn + 1) % _PHASES
        self._running = any(self._phases)
        if self._running:
            self._arm()

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data)


def instant_state(replies: InstantReplies) -> bytes:
    """For the control path: open streams and how late they are served."""
    return msgspec.json.encode(
        {"streams": replies.streams, "late_s_max": replies.late_s_max, "text_bytes": len(words(1))}
    )
