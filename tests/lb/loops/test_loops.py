"""Replicas that die, policies that change and replicas that are restarted, twenty times each, under load."""

from __future__ import annotations

import signal
import time

import pytest

from tests.lb.loops.conftest import MakeBalancer, MakeReplicas
from tests.lb.loops.processes import Answer, Balancer, Load

ROUNDS = 20
LEAST_REQUESTS = 2000
QUICK_HEALTH = {"interval": "200ms", "timeout": "1s", "ejection": "1s", "ejection_max": "1s"}
"""A replica that dies every few seconds is kept out longer each time by default; here it is wanted back at once."""
PAUSE_S = 0.005
"""Between a client's requests, as replicas, balancer and clients share two cores with whatever else runs."""


def failures(answers: list[Answer]) -> list[Answer]:
    return [answer for answer in answers if not answer.ok]


@pytest.mark.timeout(180)
async def test_twenty_kills_cost_the_streams_on_the_dead_replica_and_nothing_else(
    make_replicas: MakeReplicas, make_balancer: MakeBalancer
) -> None:
    replicas = await make_replicas(3)
    balancer = await make_balancer(replicas, policy={"health": QUICK_HEALTH})
    load = Load(balancer.address, clients=12, tokens=40, pause_s=PAUSE_S).start()
    lost: list[Answer] = []
    for number in range(ROUNDS):
        await load.until(30)
        victim = replicas[number % 3]
        seen = len(load.answers)
        await victim.kill()
        killed_at = time.monotonic()
        await load.until(40)
        cut = failures(load.answers[seen:])
        for answer in cut:
            assert answer.streamed or answer.status in (502, 200), answer
            assert await chosen(balancer, answer) == victim.url, f"lost on a replica that lived: {answer}"
            assert answer.at - killed_at < 1.0, f"still sent to a corpse: {answer}"
        lost += cut
        await victim.start()
        await balancer.until(victim.url, state="ready")
    answers = await load.stop()
    assert len(failures(answers)) == len(lost), "lost between the kills"
    refused = [answer for answer in answers if answer.status not in (0, 200)]
    print(f"{len(answers)} requests, {len(lost)} cut with their replica, other failures {len(refused)}")
    assert not refused
    assert len(answers) >= 1000


async def chosen(balancer: Balancer, answer: Answer) -> str:
    """Which replica a request went to, as the balancer explains it."""
    status, explanation = await balancer.call("GET", f"/v1/explain/{answer.request_id}")
    assert status == 200, f"no explanation for {answer}"
    return str(explanation["chosen"])


@pytest.mark.timeout(120)
async def test_h04_twenty_reloads_lose_nothing(make_replicas: MakeReplicas, make_balancer: MakeBalancer) -> None:
    replicas = await make_replicas(2)
    balancer = await make_balancer(replicas, policy={})
    load = Load(balancer.address, clients=12, pause_s=PAUSE_S).start()
    for number in range(ROUNDS):
        await load.until(LEAST_REQUESTS // ROUNDS)
        before = (await balancer.call("GET", "/v1/status"))[1]["last_reload"]["at"]
        balancer.rewrite(routing={"session_ttl": f"{100 + number}s"}, limits={"body": f"{20 + number}MiB"})
        balancer.signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while (await balancer.call("GET", "/v1/status"))[1]["last_reload"]["at"] == before:
            assert time.monotonic() < deadline, balancer.output()[-500:]
    answers = await load.stop()
    print(f"{len(answers)} requests, {ROUNDS} reloads, failures {failures(answers)}")
    assert len(answers) >= LEAST_REQUESTS
    assert failures(answers) == []
    status = (await balancer.call("GET", "/v1/status"))[1]
    assert status["last_reload"]["ok"]


@pytest.mark.timeout(180)
async def test_twenty_drain_and_restart_cycles_lose_nothing(
    make_replicas: MakeReplicas, make_balancer: MakeBalancer
) -> None:
    replicas = await make_replicas(3)
    balancer = await make_balancer(replicas, policy={"health": QUICK_HEALTH})
    load = Load(balancer.address, clients=12, pause_s=PAUSE_S).start()
    for number in range(ROUNDS):
        replica = replicas[number % 3]
        path = "/v1/replicas/" + replica.url.removeprefix("http://")
        assert (await balancer.call("POST", f"{path}/drain"))[0] == 202
        await balancer.until(replica.url, in_flight=0)
        replica.signal(signal.SIGTERM)
        await replica.ended()
        await replica.start()
        assert (await balancer.call("POST", f"{path}/undrain"))[0] == 202
        await balancer.until(replica.url, state="ready")
    await load.until(max(1, LEAST_REQUESTS - len(load.answers)))
    answers = await load.stop()
    print(f"{len(answers)} requests, {ROUNDS} drains and restarts, failures {failures(answers)}")
    assert len(answers) >= LEAST_REQUESTS
    assert failures(answers) == []
