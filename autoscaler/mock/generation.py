"""One request for tokens: from the engine's events to bytes on its connection."""

from __future__ import annotations

from typing import Any

from autoscaler.mock.connection import Connection
from autoscaler.mock.engine import Engine
from autoscaler.mock.exposition import VllmMetrics
from autoscaler.mock.fault import STREAM_FAULTS, Fault, FaultKind
from autoscaler.mock.openai import ReplyWriter, usage
from autoscaler.sim.replica_model import SimRequest


class Generation:
    """A job of the engine that writes its answer as it comes."""

    __slots__ = (
        "_at", "_by_limit", "_cached_tokens", "_connection", "_engine", "_fault", "_first_at", "_metrics", "_sent",
        "_usage", "_writer", "request", "streams",
    )  # fmt: skip

    def __init__(
        self, engine: Engine, metrics: VllmMetrics, connection: Connection, writer: ReplyWriter, request: SimRequest,
        *, streams: bool, by_limit: bool, include_usage: bool, fault: Fault,
    ) -> None:  # fmt: skip
        self.request = request
        self.streams = streams
        self._cached_tokens = 0
        self._engine = engine
        self._metrics = metrics
        self._connection = connection
        self._writer = writer
        self._by_limit = by_limit
        self._usage = include_usage
        self._fault = fault if fault.kind in STREAM_FAULTS else None
        self._at = engine.now()
        self._first_at = 0.0
        self._sent = 0
        connection.on_gone = self._abandoned

    def first_token(self, at_s: float, cached_tokens: int) -> None:
        self._first_at = at_s
        self._metrics.ttft.observe((at_s - self._at) / self._engine.speed)
        self._cached_tokens = cached_tokens
        if not self.streams:
            return
        self._connection.begin_stream()
        head = self._writer.stream_head()
        if self._fails_after(1):
            return
        if self.request.output_tokens > 1:
            head += self._writer.stream_tokens(1, finish=False, by_limit=False)
            self._sent = 1
        if head:
            self._connection.send(head)

    def tokens(self, generated: int) -> None:
        fresh = generated - self._sent
        if fresh <= 0 or self._connection.blocked or self._fails_after(generated):
            return
        self._sent = generated
        self._connection.send(self._writer.stream_tokens(fresh, finish=False, by_limit=False))

    def finished(self, at_s: float) -> None:
        request, connection = self.request, self._connection
        if request.output_tokens > 1:
            gap_s = (at_s - self._first_at) / (request.output_tokens - 1) / self._engine.speed
            self._metrics.itl.observe(gap_s, request.output_tokens - 1)
        self._metrics.e2e.observe((at_s - self._at) / self._engine.speed)
        used = usage(request.prompt_tokens, request.output_tokens, self._cached_tokens)
        if not self.streams:
            self._metrics.finished["length" if self._by_limit else "stop"] += 1
            connection.reply(200, self._writer.unary(request.output_tokens, self._by_limit, used))
            return
        if self._fails_after(request.output_tokens):
            return
        self._metrics.finished["length" if self._by_limit else "stop"] += 1
        rest = self._writer.stream_tokens(request.output_tokens - self._sent, finish=True, by_limit=self._by_limit)
        connection.send(rest + self._writer.stream_end(used if self._usage else None))
        connection.end_stream()

    def _fails_after(self, generated: int) -> bool:
        """Whether this stream is over by a fault; carries the fault out when its token is reached."""
        fault = self._fault
        if fault is None or generated < fault.tokens:
            return False
        connection = self._connection
        if self._sent < fault.tokens and fault.tokens > 0:
            missing = fault.tokens - self._sent
            connection.send(self._writer.stream_tokens(missing, finish=False, by_limit=False))
            self._sent = fault.tokens
        if fault.kind is FaultKind.SILENT_STREAM:
            return True
        self._engine.cancel(self)
        if fault.kind is FaultKind.RESET_STREAM:
            connection.reset()
        elif fault.kind is FaultKind.CUT_STREAM:
            connection.cut()
        elif connection.busy:
            connection.end_stream()
        return True

    def _abandoned(self) -> None:
        self._engine.cancel(self)


def wants_usage(options: dict[str, Any] | None) -> bool:
    """Whether `stream_options` ask for the chunk with token counts."""
    return bool(options and options.get("include_usage"))
