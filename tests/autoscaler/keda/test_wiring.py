"""From a policy to an answer over gRPC: the controller's shell starts the service, keeps it, and ends it."""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from autoscaler.errors import StartError
from autoscaler.keda import messages
from autoscaler.loops.scaling import Scaling
from autoscaler.metrics import ControlMetrics
from autoscaler.policy.load import parse
from autoscaler.policy.schema import Policy
from autoscaler.roots import RootTasks
from lb.clock import SYSTEM_CLOCK, Clock
from lb.gateway import Gateway
from lb.settings import LbSettings
from lb.yaml_document import DocumentError
from nvml.sample import NodeSnapshot


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def policy(keda: str = "null") -> Policy:
    return parse(f"scaling: {{keda: {keda}, pools: [{{name: chat, min_replicas: 2}}]}}")


def scaling(roots: RootTasks, base: Path) -> tuple[Scaling, Gateway]:
    loop = asyncio.get_running_loop()
    gateway = Gateway(LbSettings(), loop, random.Random(1))
    one = Scaling(
        gateway, Clock(loop.time, SYSTEM_CLOCK.wall), ControlMetrics(CollectorRegistry()), roots,
        base=base, environ={"HOME": str(base)}, gpus=lambda: NodeSnapshot(taken_at=0.0),
    )  # fmt: skip
    return one, gateway


async def test_it_answers_while_the_controller_lives_and_lets_go_of_its_port(tmp_path: Path) -> None:
    roots, port = RootTasks(), free_port()
    one, gateway = scaling(roots, tmp_path)
    await one.start(one.prepare(policy(f"{{listen: 127.0.0.1:{port}}}")))
    assert one.control is not None
    await one.control.tick()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary(
            "/externalscaler.ExternalScaler/IsActive",
            request_serializer=lambda ref: ref.SerializeToString(),
            response_deserializer=messages.IsActiveResponse.FromString,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(messages.ScaledObjectRef(scalerMetadata={"pool": "chat"}), timeout=10.0)
    assert caught.value.details() == "pool 'chat': its demand is not known", "a process that has just begun"
    await one.halt()
    await roots.stop_all()
    await one.close()
    gateway.close()
    assert not roots.failed.is_set()
    with socket.socket() as again:
        # Connections that have just ended are no listener; a listener would be refused all the same.
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


async def test_it_is_off_by_default_and_a_change_waits_for_a_restart(tmp_path: Path) -> None:
    roots = RootTasks()
    one, gateway = scaling(roots, tmp_path)
    await one.start(one.prepare(policy()))
    assert one.restart_needed(one.prepare(policy())) == []
    assert one.restart_needed(one.prepare(policy("{}"))) == ["scaling.keda needs a restart"]
    await roots.stop_all()
    await one.close()
    gateway.close()


async def test_an_address_that_is_taken_ends_the_start_with_its_name(tmp_path: Path) -> None:
    roots = RootTasks()
    one, gateway = scaling(roots, tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError, match=rf"scaling\.keda\.listen: {address} cannot be listened on"):
            await one.start(one.prepare(policy(f"{{listen: '{address}'}}")))
    await roots.stop_all()
    await one.close()
    gateway.close()


def test_the_policy_says_where() -> None:
    assert policy().scaling.keda is None
    keda = policy("{}").scaling.keda
    assert keda is not None
    assert keda.listen == "127.0.0.1:9500"
    with pytest.raises(DocumentError) as caught:
        policy("{listen: nowhere}")
    (problem,) = caught.value.problems
    assert "scaling.keda.listen = 'nowhere': is not an address to listen on" in problem.text("p.yaml")
