"""KEDA's four calls, asked by a gRPC client that has its own description of the messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from autoscaler.keda import messages
from autoscaler.keda.service import KedaServer
from autoscaler.keda.wish import Wish


class World:
    """A server with pools that a test changes, and a client."""

    def __init__(self) -> None:
        self.wishes: dict[str, Wish] = {"chat": Wish(7), "idle": Wish(0), "code": Wish(0, "its demand is not known")}
        self.server = KedaServer("127.0.0.1:0", lambda: self.wishes, watch_s=0.01)
        self.channel: Any = None

    async def begin(self) -> None:
        await self.server.begin()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.server.port}")

    def ref(self, pool: str | None) -> Any:
        metadata = {"scalerAddress": "tidegate:9500"} | ({} if pool is None else {"pool": pool})
        return messages.ScaledObjectRef(name="chat", namespace="inference", scalerMetadata=metadata)

    async def ask(self, call: str, pool: str | None) -> Any:
        """The answer as plain bytes would be read by whoever knows the .proto."""
        asked = self.ref(pool)
        if call == "GetMetrics":
            asked = messages.GetMetricsRequest(scaledObjectRef=asked, metricName="desired_replicas")
        told = {
            "IsActive": messages.IsActiveResponse,
            "GetMetricSpec": messages.GetMetricSpecResponse,
            "GetMetrics": messages.GetMetricsResponse,
        }
        method = self.channel.unary_unary(
            f"/externalscaler.ExternalScaler/{call}",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=told[call].FromString,
        )
        return await method(asked, timeout=10.0)

    def stream(self, pool: str) -> Any:
        method = self.channel.unary_stream(
            "/externalscaler.ExternalScaler/StreamIsActive",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=messages.IsActiveResponse.FromString,
        )
        return method(self.ref(pool), timeout=30.0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    one = World()
    await one.begin()
    yield one
    await one.channel.close()
    await one.server.close()


def test_bytes_are_those_of_the_proto() -> None:
    ref = messages.ScaledObjectRef(name="n", namespace="s", scalerMetadata={"pool": "chat"})
    assert ref.SerializeToString() == b"\x0a\x01n\x12\x01s\x1a\x0c\x0a\x04pool\x12\x04chat"
    assert messages.IsActiveResponse(result=True).SerializeToString() == b"\x08\x01"
    spec = messages.GetMetricSpecResponse(metricSpecs=[{"metricName": "m", "targetSize": 1, "targetSizeFloat": 1.0}])
    assert spec.SerializeToString() == b"\x0a\x0e\x0a\x01m\x10\x01\x19\x00\x00\x00\x00\x00\x00\xf0\x3f"
    value = messages.GetMetricsResponse(metricValues=[{"metricName": "m", "metricValue": 300, "metricValueFloat": 1.0}])
    assert value.SerializeToString() == b"\x0a\x0f\x0a\x01m\x10\xac\x02\x19\x00\x00\x00\x00\x00\x00\xf0\x3f"
    asked = messages.GetMetricsRequest(scaledObjectRef={"name": "n"}, metricName="m")
    assert asked.SerializeToString() == b"\x0a\x03\x0a\x01n\x12\x01m"


async def test_a_pool_is_active_while_it_wants_replicas(world: World) -> None:
    assert (await world.ask("IsActive", "chat")).result is True
    assert (await world.ask("IsActive", "idle")).result is False


async def test_the_metric_is_the_wanted_number_and_its_target_one(world: World) -> None:
    (spec,) = (await world.ask("GetMetricSpec", "chat")).metricSpecs
    assert (spec.metricName, spec.targetSize) == ("desired_replicas", 1)
    (value,) = (await world.ask("GetMetrics", "chat")).metricValues
    assert (value.metricName, value.metricValue) == ("desired_replicas", 7)
    world.wishes["chat"] = Wish(12)
    (value,) = (await world.ask("GetMetrics", "chat")).metricValues
    assert value.metricValue == 12


@pytest.mark.parametrize("call", ["IsActive", "GetMetricSpec", "GetMetrics"])
async def test_an_unknown_pool_is_an_error_that_names_those_that_exist(world: World, call: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.ask(call, "chta")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "there is no pool 'chta'; pools are: chat, idle, code"


async def test_metadata_without_a_pool_say_what_to_write(world: World) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.ask("GetMetricSpec", None)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "write pool: NAME; pools are: chat, idle, code" in str(caught.value.details())


async def test_a_size_that_must_not_be_acted_on_is_an_error_and_never_zero(world: World) -> None:
    for call in ("IsActive", "GetMetrics"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await world.ask(call, "code")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "pool 'code': its demand is not known"
    assert (await world.ask("GetMetricSpec", "code")).metricSpecs[0].targetSize == 1


async def test_a_stream_tells_changes_and_is_silent_about_what_is_not_known(world: World) -> None:
    stream = world.stream("idle")
    assert (await stream.read()).result is False
    world.wishes["idle"] = Wish(0, "the last decision is 99 s old")
    next_one = stream.read()
    world.wishes["idle"] = Wish(3)
    assert (await next_one).result is True
    world.wishes["idle"] = Wish(0)
    assert (await stream.read()).result is False
    del world.wishes["idle"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_stream_ends_in_order_when_the_server_closes(world: World) -> None:
    stream = world.stream("chat")
    assert (await stream.read()).result is True
    await world.server.close()
    assert await stream.read() == grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_an_address_that_is_taken_is_refused_with_its_name(world: World) -> None:
    second = KedaServer(f"127.0.0.1:{world.server.port}", dict)
    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{world.server.port} cannot be listened on"):
        await second.begin()
    await second.close()
