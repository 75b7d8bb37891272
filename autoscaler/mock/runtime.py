"""One simulated replica: paths, faults, and what it does with each request."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import msgspec

from autoscaler.mock import openai
from autoscaler.mock.connection import Connection, Request
from autoscaler.mock.engine import Engine
from autoscaler.mock.errors import FaultError, RequestError
from autoscaler.mock.exposition import VllmMetrics
from autoscaler.mock.fault import REQUEST_FAULTS, STREAM_FAULTS, Fault, FaultKind, fault_from_mapping
from autoscaler.mock.generation import Generation, wants_usage
from autoscaler.mock.instant import InstantReplies
from autoscaler.mock.settings import MockSettings
from autoscaler.sim.replica_model import PromptTooLongError, SimRequest

_VERSION = b'{"version":"0.32.0+tidegate.mock"}'
_DYING = "cannot schedule new futures after shutdown"


class Runtime:
    """Answers every path of one port. Faults take effect on the next request; engine faults at once."""

    def __init__(self, settings: MockSettings) -> None:
        self.settings = settings
        self.connections: set[Connection] = set()
        self.draining = False
        self.emptied = asyncio.Event()
        """While draining: the last connection is gone."""
        self._engine = Engine(settings.replica, settings.speed, settings.flush_s)
        self._metrics = VllmMetrics(settings.name)
        self._instant = InstantReplies(settings.name, settings.stream_interval_s) if settings.instant else None
        self._fault = Fault()
        self._warm_factor = 1.0
        self._seq = 0
        self._requests = 0
        self._created = int(time.time())
        self._posts: dict[bytes, Callable[[Connection, Request], None]] = {
            b"/v1/chat/completions": lambda c, r: self._generate(c, r, chat=True),
            b"/v1/completions": lambda c, r: self._generate(c, r, chat=False),
            b"/v1/embeddings": self._embed,
        }
        self.set_fault(settings.fault)

    # ------------------------------------------------------------------ state

    def set_fault(self, fault: Fault) -> None:
        """Replace the fault in force."""
        if fault.kind is FaultKind.CRASH:
            os._exit(1)
        self._fault = fault
        self._engine.set_stalled(fault.kind in (FaultKind.HANG, FaultKind.STALL))
        self._set_speed()

    def set_warm_up(self, factor: float) -> None:
        """Slow every step by this factor (1.0: warm)."""
        self._warm_factor = factor
        self._set_speed()

    def drain(self) -> None:
        """Close each connection as soon as it owes no answer."""
        self.draining = True
        for connection in list(self.connections):
            connection.closing = True
            if not connection.busy:
                connection.cut()
        if not self.connections:
            self.emptied.set()

    def _set_speed(self) -> None:
        slow = self._fault.factor if self._fault.kind is FaultKind.SLOW else 1.0
        self._engine.set_slow_factor(self.settings.replica.slow_factor * slow * self._warm_factor)

    # ------------------------------------------------------------------ requests

    def connected(self, connection: Connection) -> None:
        self.connections.add(connection)
        connection.closing = self.draining

    def gone(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self.emptied.set()

    def handle(self, connection: Connection, request: Request) -> None:
        if request.path.startswith(b"/mock/"):
            self._control(connection, request)
            return
        kind = self._fault.kind
        if kind is FaultKind.HANG:
            return
        if kind is FaultKind.LOADING:
            self._fail(connection, RequestError(503, "unavailable_error", "Loading model"))
            return
        if request.method == b"GET":
            self._get(connection, request.path)
            return
        handler = self._posts.get(request.path)
        if request.method != b"POST" or handler is None:
            connection.reply(404, b'{"detail":"Not Found"}')
            return
        self._requests += 1
        if kind in REQUEST_FAULTS:
            self._refuse(connection, kind)
        elif self._instant is not None:
            self._instant.handle(connection, request)
        else:
            try:
                handler(connection, request)
            except RequestError as error:
                self._fail(connection, error)

    def _refuse(self, connection: Connection, kind: FaultKind) -> None:
        fault, self._fault = self._fault, self._fault.used_once()
        if kind is FaultKind.RESET:
            connection.reset()
        elif kind is FaultKind.CLOSE:
            connection.cut()
        elif kind is FaultKind.DYING:
            self._fail(connection, RequestError(500, "InternalServerError", _DYING))
        else:
            after = () if fault.retry_after_s is None else (f"retry-after: {fault.retry_after_s:g}",)
            body = openai.error_body(fault.status, "ServiceUnavailable", "simulated fault", None)
            connection.reply(fault.status, body, "application/json", *after)

    def _get(self, connection: Connection, path: bytes) -> None:
        if path in (b"/health", b"/ping"):
            connection.reply(200)
        elif path == b"/metrics":
            connection.reply(200, self._metrics_page(), "text/plain; version=0.0.4; charset=utf-8")
        elif path == b"/v1/models":
            connection.reply(
                200, openai.models_body(self.settings.name, self.settings.replica.kv_tokens, self._created)
            )
        elif path == b"/load":
            connection.reply(200, b'{"server_load":%d}' % self._engine.in_flight)
        elif path == b"/version":
            connection.reply(200, _VERSION)
        else:
            connection.reply(405 if path in self._posts else 404, b'{"detail":"Not Found"}')

    def _metrics_page(self) -> bytes:
        replica = self._engine.replica
        self._engine.catch_up()
        return self._metrics.text(
            running=replica.running,
            waiting=replica.queued(self._engine.now()),
            kv_usage_ratio=replica.kv_usage_ratio,
            prompt_tokens=replica.prompt_tokens_total,
            generation_tokens=replica.generation_tokens_total,
            prefix_queries=replica.prefix_query_tokens,
            prefix_hits=replica.prefix_hit_tokens,
            kv_tokens=self.settings.replica.kv_tokens,
            prefix_cache=self.settings.replica.prefix_cache,
        )

    def _generate(self, connection: Connection, request: Request, *, chat: bool) -> None:
        body = openai.read_body(request.body)
        self._check_model(body)
        text, ids = (openai.chat_text(body), 0) if chat else openai.flat_text(body.prompt, "prompt")
        prompt = self._prompt_tokens(body, request, text, ids)
        header = request.headers.get(b"x-mock-output-tokens")
        output, by_limit = openai.output_tokens(body, header, text, self.settings.default_output_tokens)
        self._seq += 1
        reply_id = request.headers.get(b"x-request-id", b"").decode("latin-1") or f"{self._seq:08x}"
        self._submit(
            Generation(
                self._engine,
                self._metrics,
                connection,
                openai.ReplyWriter(body, chat, reply_id, self.settings.name),
                SimRequest(self._seq, prompt, output, self._blocks(text)),
                streams=bool(body.stream),
                by_limit=by_limit,
                include_usage=wants_usage(body.stream_options),
                fault=self._fault,
            ),
            connection,
        )
        if self._fault.kind in STREAM_FAULTS and body.stream:
            self._fault = self._fault.used_once()

    def _embed(self, connection: Connection, request: Request) -> None:
        body = openai.read_body(request.body)
        self._check_model(body)
        text, ids = openai.flat_text(body.input, "input")
        prompt = self._prompt_tokens(body, request, text, ids)
        self._seq += 1
        answer = openai.embeddings_body(body, self.settings.name, prompt)
        self._submit(_Embedding(self._engine, connection, SimRequest(self._seq, prompt, 1), answer), connection)

    def _submit(self, job: Generation | _Embedding, connection: Connection) -> None:
        try:
            self._engine.submit(job)
        except PromptTooLongError as error:
            connection.on_gone = None
            raise RequestError(400, "BadRequestError", str(error), "max_tokens") from None

    def _check_model(self, body: openai.Body) -> None:
        if body.model and body.model != self.settings.name:
            message = f"The model `{body.model}` does not exist. Valid aliases: {self.settings.name}."
            raise RequestError(404, "NotFoundError", message, "model")

    def _prompt_tokens(self, body: openai.Body, request: Request, text: str, ids: int) -> int:
        header = request.headers.get(b"x-mock-prompt-tokens")
        if header is not None and header.isdigit():
            return max(1, int(header))
        if body.mock_prompt_tokens is not None:
            return max(1, body.mock_prompt_tokens)
        return ids + openai.text_tokens(text) if text else max(1, ids)

    def _blocks(self, text: str) -> tuple[int, ...]:
        replica = self.settings.replica
        return openai.prefix_blocks(text, replica.block_tokens) if replica.prefix_cache else ()

    def _fail(self, connection: Connection, error: RequestError) -> None:
        connection.reply(error.status, openai.error_body(error.status, error.kind, error.message, error.param))

    # ------------------------------------------------------------------ control

    def _control(self, connection: Connection, request: Request) -> None:
        """`POST /mock/fault` sets a fault, `POST /mock/reset` forgets faults and cache, `GET /mock/state` tells."""
        if request.path == b"/mock/fault" and request.method == b"POST":
            try:
                values: dict[str, Any] = msgspec.json.decode(request.body, type=dict[str, Any])
                self.set_fault(fault_from_mapping(values))
            except (FaultError, msgspec.DecodeError) as error:
                self._fail(connection, RequestError(400, "BadRequestError", str(error)))
                return
        elif request.path == b"/mock/reset" and request.method == b"POST":
            self.set_fault(Fault())
            self._engine.replica.clear_cache()
            self._engine.late_s_max = 0.0
        elif request.path != b"/mock/state":
            connection.reply(404, b'{"detail":"Not Found"}')
            return
        connection.reply(200, self._state())

    def _state(self) -> bytes:
        replica = self._engine.replica
        state: dict[str, Any] = {
            "fault": self._fault.kind.value,
            "model_s": self._engine.now(),
            "requests": self._requests,
            "in_flight": self._engine.in_flight,
            "running": replica.running,
            "waiting": replica.waiting,
            "busy_s": replica.busy_s,
            "late_s_max": self._engine.late_s_max,
            "prefix_query_tokens": replica.prefix_query_tokens,
            "prefix_hit_tokens": replica.prefix_hit_tokens,
            "connections": len(self.connections),
        }
        if self._instant is not None:
            state["streams"] = self._instant.streams
            state["late_s_max"] = self._instant.late_s_max
        return msgspec.json.encode(state)


class _Embedding:
    """A job that is one prefill."""

    streams = False

    def __init__(self, engine: Engine, connection: Connection, request: SimRequest, answer: bytes) -> None:
        self.request = request
        self._connection = connection
        self._answer = answer
        connection.on_gone = lambda: engine.cancel(self)

    def first_token(self, at_s: float, cached_tokens: int) -> None:
        """An embedding has none."""

    def tokens(self, generated: int) -> None:
        """It has none."""

    def finished(self, at_s: float) -> None:
        self._connection.reply(200, self._answer)
