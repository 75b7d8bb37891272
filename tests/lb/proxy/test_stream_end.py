"""The end of a stream: `[DONE]` is believed only behind an answer's own end, and an answer may speak of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lb.effects import Ticket, TicketState
from lb.proxy.relay import Relay
from lb.request import RequestInfo, SurfaceName
from lb.surfaces import SURFACES

FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": None}]}).encode() + b"\n\n"


class Wire:
    """Stands where context, client and replica's connection are; keeps what is written."""

    def __init__(self) -> None:
        self.out = b""
        self.transport = self
        self.http11 = True
        self.status, self.reason, self.content_length = 200, b"OK", -1
        self.lines: list[bytes] = []
        self.kept = {b"content-type": b"text/event-stream"}
        self.loop = self
        self.balancer = self

    def time(self) -> float:
        return 0.0

    def first_byte(self, ticket: Ticket, now: float) -> None:
        ticket.first_byte_at = 1.0

    def progress(self, ticket: Ticket, now: float) -> None:
        assert ticket.events

    def write(self, transport: Any, data: bytes, more: bytes = b"") -> None:
        self.out += data + more


def relay() -> tuple[Relay, Wire, Ticket]:
    wire = Wire()
    made = Relay(wire, wire, SURFACES[SurfaceName.CHAT])  # type: ignore[arg-type]
    made.start(wire, "id", False, False)  # type: ignore[arg-type]
    return made, wire, Ticket(RequestInfo("id"), TicketState.ROUTED, 0.0)


def play(pieces: list[bytes]) -> tuple[bool, bytes]:
    """Pass the pieces on as an exchange does; returns whether the stream was cut, and its body without chunks."""
    made, wire, ticket = relay()
    for piece in pieces:
        if made.stream(ticket, piece):
            continue
        if made.truncated_by(piece, False):
            return True, body(wire.out)
        made.pass_on(piece, False)
    cut = made.truncated_by(b"", True)
    if not cut:
        made.pass_on(b"", True)
        assert wire.out.endswith(b"0\r\n\r\n")
    return cut, body(wire.out)


def body(wire: bytes) -> bytes:
    out, rest = b"", wire.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        out, rest = out + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return out


@pytest.mark.parametrize(
    "pieces",
    [
        [event("a"), FINISH, DONE],
        [event("a") + FINISH + DONE],
        [event("a"), FINISH + DONE],
        [event("a"), FINISH],
        [event("end with data: [DONE]"), event("b"), FINISH, DONE],
        [event("a")[:-30], event("a")[-30:], FINISH, DONE],
        [b'data: {"choices":[{"delta":{"content":"', b'data: [DONE]"},"finish_reason":null}]}\n\n', FINISH, DONE],
    ],
)
def test_a_complete_stream_passes_byte_for_byte(pieces: list[bytes]) -> None:
    assert play(pieces) == (False, b"".join(pieces))


@pytest.mark.parametrize(
    ("pieces", "passed"),
    [
        ([event("a"), DONE], event("a")),
        ([event("a") + DONE], event("a")),
        ([event("a"), event("b") + DONE], event("a") + event("b")),
        ([event("a")], event("a")),
        ([event("a"), FINISH.replace(b"stop", b"abort"), DONE], event("a") + FINISH.replace(b"stop", b"abort")),
    ],
)
def test_a_done_without_an_end_is_not_passed_on(pieces: list[bytes], passed: bytes) -> None:
    assert play(pieces) == (True, passed)


def test_comments_are_no_progress() -> None:
    made, _, ticket = relay()
    made.note_progress(ticket, b": ping\n\n")
    assert (ticket.events, ticket.first_byte_at) == (0, 0.0)
    made.note_progress(ticket, event("a") + event("b"))
    assert ticket.events == 2
    assert ticket.first_byte_at
