"""Group H, the rows about the process: signals, restarts, reloads.

H04 (twenty reloads under load) is in tests/lb/loops, H05 to H13 (bad policies and secrets) in tests/autoscaler.
"""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.lb.catalogue.client import Client
from tests.lb.loops.conftest import MakeBalancer, MakeReplicas, make_balancer, make_replicas
from tests.lb.loops.processes import Load, chat_request, cpu_s

__all__ = ["make_balancer", "make_replicas"]

SLOW = ("--speed", "1", "--flush", "10ms")
"""Real pace: 100 tokens take 1.3 s."""
GRACE = {"timeouts": {"shutdown": "20s"}}


async def _streaming(address: tuple[str, int], tokens: int) -> Client:
    """A client whose stream has begun."""
    client = await Client.connect(address)
    await client.send(chat_request(True, tokens))
    while b"data:" not in client.source.buffer:
        assert await client.source.more()
    return client


@pytest.mark.timeout(60)
async def test_h01_sigterm_lets_running_streams_end_and_exits_0(
    make_replicas: MakeReplicas, make_balancer: MakeBalancer
) -> None:
    replicas = await make_replicas(2, *SLOW)
    balancer = await make_balancer(replicas, policy=GRACE)
    idle = await Client.connect(balancer.address)
    clients = [await _streaming(balancer.address, 100) for _ in range(6)]
    balancer.signal(signal.SIGTERM)
    await idle.ended()
    status, answer = await balancer.call("GET", "/readyz")
    assert (status, answer["status"]) == (503, "draining")
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(balancer.address)
    for client in clients:
        response = await client.response(timeout_s=20)
        assert response is not None
        assert response.complete
        assert b"[DONE]" in response.body
        client.close()
    assert await balancer.ended() == 0
    idle.close()


@pytest.mark.timeout(60)
async def test_h01_a_second_sigterm_cuts_what_still_runs(
    make_replicas: MakeReplicas, make_balancer: MakeBalancer
) -> None:
    replicas = await make_replicas(1, *SLOW)
    balancer = await make_balancer(replicas, policy=GRACE)
    client = await _streaming(balancer.address, 5000)
    balancer.signal(signal.SIGTERM)
    await asyncio.sleep(0.3)
    started = time.monotonic()
    balancer.signal(signal.SIGTERM)
    response = await client.response()
    assert response is not None
    assert not response.complete
    assert b"[DONE]" not in response.body
    await balancer.ended()
    assert time.monotonic() - started < 5
    client.close()


@pytest.mark.timeout(60)
async def test_h01_the_grace_is_kept(make_replicas: MakeReplicas, make_balancer: MakeBalancer) -> None:
    replicas = await make_replicas(1, *SLOW)
    balancer = await make_balancer(replicas, policy={"timeouts": {"shutdown": "1s"}})
    client = await _streaming(balancer.address, 5000)
    started = time.monotonic()
    balancer.signal(signal.SIGTERM)
    response = await client.response()
    assert response is not None
    assert not response.complete
    await balancer.ended()
    assert 0.9 < time.monotonic() - started < 6
    client.close()


@pytest.mark.timeout(60)
async def test_h02_after_sigkill_it_is_ready_again_at_once_and_knows_its_replicas(
    make_replicas: MakeReplicas, make_balancer: MakeBalancer
) -> None:
    replicas = await make_replicas(2)
    balancer = await make_balancer(replicas)
    load = Load(balancer.address, clients=2).start()
    await load.until(20)
    await load.stop()
    await balancer.kill()
    await balancer.start()
    assert cpu_s(balancer.pid) < 2.0, "2 s is the row's bound; CPU time, as the machine is shared"
    for replica in replicas:
        await balancer.until(replica.url, state="ready")
    again = Load(balancer.address, clients=2).start()
    await again.until(20)
    assert all(answer.ok for answer in await again.stop())


@pytest.mark.timeout(60)
async def test_h03_sighup_with_the_same_policy_changes_nothing(
    make_replicas: MakeReplicas, make_balancer: MakeBalancer
) -> None:
    replicas = await make_replicas(2)
    balancer = await make_balancer(replicas, policy={})
    before = await balancer.replicas()
    policy_hash = (await balancer.call("GET", "/v1/status"))[1]["policy_hash"]
    load = Load(balancer.address, clients=6).start()
    for _ in range(5):
        await load.until(40)
        balancer.signal(signal.SIGHUP)
    await load.until(40)
    answers = await load.stop()
    assert all(answer.ok for answer in answers)
    after = await balancer.replicas()
    assert (await balancer.call("GET", "/v1/status"))[1]["policy_hash"] == policy_hash
    for url, replica in after.items():
        assert replica["state"] == "ready"
        assert replica["since_s"] > before[url]["since_s"], "a replica was taken out and back"
        assert replica["routed_total"] > before[url]["routed_total"]
