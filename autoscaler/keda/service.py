"""The gRPC service. A size that must not be acted on is an error, never 0: KEDA then changes nothing or falls back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import grpc

from autoscaler.keda.messages import (
    SERVICE,
    GetMetricSpecResponse,
    GetMetricsRequest,
    GetMetricsResponse,
    IsActiveResponse,
    ScaledObjectRef,
)
from autoscaler.keda.wish import Wish
from lb.address import parse_address, show_address

METRIC = "desired_replicas"
POOL_KEY = "pool"
"""Key of a trigger's metadata that names the pool."""
WATCH_S = 1.0
"""Between looks for a change that a stream is told: no tick is shorter."""
_STOP_S = 1.0
"""For calls under way at the end; each is answered from memory."""
_MOST_CALLS = 1000
"""At once. Each ScaledObject of type external-push holds one open; more than this is no KEDA."""
_LONGEST_REQUEST_BYTES = 65_536
"""Metadata of a trigger is a few lines."""


class KedaServer:
    """Answers KEDA from `wishes`, by pool. `begin`, then `run` until cancelled, then `close`."""

    def __init__(self, listen: str, wishes: Callable[[], Mapping[str, Wish]], *, watch_s: float = WATCH_S) -> None:
        """`listen`: host:port; port 0 lets the kernel choose."""
        self._wishes = wishes
        self._watch_s = watch_s
        self._address = show_address(*parse_address(listen))
        self._closing = asyncio.Event()
        self._server: Any = None
        self.port = 0

    async def begin(self) -> None:
        """Listen. Raises OSError if the address cannot be had."""
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=_MOST_CALLS,
            options=(
                ("grpc.so_reuseport", 0),  # a second process on the port must fail and not take half of the calls
                ("grpc.max_receive_message_length", _LONGEST_REQUEST_BYTES),
            ),
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        try:
            self.port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(f"{self._address} cannot be listened on: {error}") from None
        await self._server.start()

    def _handlers(self) -> dict[str, Any]:
        answers = {
            "IsActive": (self._is_active, ScaledObjectRef, IsActiveResponse),
            "GetMetricSpec": (self._metric_spec, ScaledObjectRef, GetMetricSpecResponse),
            "GetMetrics": (self._metrics, GetMetricsRequest, GetMetricsResponse),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                answer, request_deserializer=asked.FromString, response_serializer=told.SerializeToString
            )
            for name, (answer, asked, told) in answers.items()
        }
        handlers["StreamIsActive"] = grpc.unary_stream_rpc_method_handler(
            self._stream_is_active,
            request_deserializer=ScaledObjectRef.FromString,
            response_serializer=IsActiveResponse.SerializeToString,
        )
        return handlers

    async def run(self) -> None:
        """Return only if the server ended by itself."""
        # Without the shield a cancellation would reach the server's own future of its end, and `close` with it.
        await asyncio.shield(self._server.wait_for_termination())

    async def close(self) -> None:
        """End streams, let calls under way end, let go of the port."""
        self._closing.set()
        if self._server is not None:
            await self._server.stop(_STOP_S)

    # ------------------------------------------------------------------ what is asked

    async def _is_active(self, request: Any, context: Any) -> Any:
        return IsActiveResponse(result=await self._replicas(request, context) > 0)

    async def _metric_spec(self, request: Any, context: Any) -> Any:
        """Known without a decision, so that KEDA can make its HorizontalPodAutoscaler at any time."""
        await self._wish(request, context)
        return GetMetricSpecResponse(metricSpecs=[{"metricName": METRIC, "targetSize": 1}])

    async def _metrics(self, request: Any, context: Any) -> Any:
        replicas = await self._replicas(request.scaledObjectRef, context)
        return GetMetricsResponse(metricValues=[{"metricName": METRIC, "metricValue": replicas}])

    async def _stream_is_active(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Says nothing while it is not known: KEDA then leaves things as they are."""
        told: bool | None = None
        while not self._closing.is_set():
            wish = await self._wish(request, context)
            if not wish.problem and (wish.replicas > 0) is not told:
                told = wish.replicas > 0
                yield IsActiveResponse(result=told)
            try:
                await asyncio.wait_for(self._closing.wait(), self._watch_s)
            except TimeoutError:
                continue

    async def _replicas(self, request: Any, context: Any) -> int:
        wish = await self._wish(request, context)
        if wish.problem:
            name = request.scalerMetadata[POOL_KEY]
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"pool {name!r}: {wish.problem}")
        return wish.replicas

    async def _wish(self, request: Any, context: Any) -> Wish:
        wishes = self._wishes()
        name = request.scalerMetadata.get(POOL_KEY, "")
        known = ", ".join(wishes) or "none"
        if not name:
            text = f"the trigger's metadata has no {POOL_KEY!r}; write {POOL_KEY}: NAME; pools are: {known}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        if name not in wishes:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no pool {name!r}; pools are: {known}")
        return wishes[name]
