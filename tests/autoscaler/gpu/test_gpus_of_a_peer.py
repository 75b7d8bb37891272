"""Two daemons: one on the machine with the cards, and one elsewhere that learns of them over `/v1/node`."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.autoscaler.daemon.conftest import Daemon
from tests.autoscaler.gpu.conftest import Card, Cards, Node, Runtime, eventually

TOKEN = "s3cret-of-the-node"


@pytest.fixture
async def near(tmp_path: Path, library: Path, runtimes: tuple[Runtime, Runtime], daemon: Callable[..., Daemon]) -> Node:
    """The node with the cards; its admin API wants a token."""
    made = Node(tmp_path / "near", library, TOKEN)
    made.say("gpus 2", *(f"proc {card} {one.process.pid} 42949672960" for card, one in enumerate(runtimes)))
    made.write(*runtimes, lb="  admin: {listen: '127.0.0.1:0', token: env:NODE_TOKEN}\n")
    environment = {**made.environment, "NODE_TOKEN": TOKEN}
    made.daemon = await daemon("run", "--policy", "near/policy.yaml", env=environment).start()
    await made.ready(*runtimes)
    return made


@pytest.fixture
async def far(
    tmp_path: Path, library: Path, near: Node, runtimes: tuple[Runtime, Runtime], daemon: Callable[..., Daemon]
) -> Node:
    """A node without cards that sends to the same runtimes and has the other one as its peer."""
    made = Node(tmp_path / "far", library)
    peer = f"{{url: '{near.daemon.admin}', token: env:NODE_TOKEN, interval: 200ms, stale: 1s}}"
    lb = f"  admin: {{listen: '127.0.0.1:0'}}\n  peers: [{peer}]\n"
    made.write(*runtimes, gpus="{driver: off}", lb=lb)
    made.daemon = await daemon("run", "--policy", "far/policy.yaml", env={"NODE_TOKEN": TOKEN}).start()
    await made.ready(*runtimes)
    return made


async def test_a_peers_lost_card_is_out_here_and_stays_out_when_the_peer_is_gone(
    near: Node, far: Node, runtimes: tuple[Runtime, Runtime], cards: Cards
) -> None:
    first, second = runtimes
    near.say(Card.LOST.format(0))

    async def out() -> bool:
        return bool((await far.replica(first))["state"] == "failed")

    await eventually(out, "out at the other node")
    assert "GPU 0 of 127.0.0.1: the driver says that the GPU is lost" in (await far.replica(first))["reason"]
    near.daemon.signal(signal.SIGKILL)
    await near.daemon.end()

    async def stale() -> bool:
        return bool((await far.replica(second))["gpu_state"] == "unknown")

    await eventually(stale, "the good card's reading is too old")
    assert "old" in (await far.replica(second))["gpu_reason"]
    assert (await far.replica(second))["state"] == "ready", "silence does not make a card lost"
    assert (await far.replica(first))["gpu_state"] == "lost", "and does not make one whole"
    assert {await cards.chat(far) for _ in range(5)} == {200}
    _, text = await far.get("/metrics")
    assert f'tidegate_peer_failing{{peer="{near.daemon.admin}"}} 1.0' in text
    _, status = await far.get("/v1/status")
    (peer,) = status["peers"]
    assert peer["error"] == "connection refused"
    assert peer["age_s"] > 0.0
    assert sorted(peer["gpus"].values()) == ["lost", "unknown"]


async def test_what_the_peer_has_in_flight_is_known_here(near: Node, far: Node, cards: Cards) -> None:
    streams = [await cards.stream(near, 150) for _ in range(3)]

    async def known() -> bool:
        _, status = await far.get("/v1/status")
        return sum(status["peers"][0]["in_flight"].values()) == 3

    await eventually(known, "three in flight at the peer")
    for stream in streams:
        await stream.content.read()


async def test_a_wrong_token_is_told_once_and_harms_nothing(
    tmp_path: Path, near: Node, runtimes: tuple[Runtime, Runtime], daemon: Callable[..., Daemon], cards: Cards
) -> None:
    made = Node(tmp_path / "far", near.library)
    peer = f"{{url: '{near.daemon.admin}', token: env:NODE_TOKEN, interval: 100ms}}"
    made.write(
        *runtimes, gpus="{driver: off}", lb=f"  admin: {{listen: '127.0.0.1:0'}}\n  peers: [{peer}]\n"
    )  # fmt: skip
    made.daemon = await daemon("run", "--policy", "far/policy.yaml", env={"NODE_TOKEN": "wrong"}).start()
    line = await made.daemon.log_line("its admin API wants a token")
    await made.ready(*runtimes, gpu=None)
    assert {await cards.chat(made) for _ in range(3)} == {200}

    async def again() -> bool:
        _, text = await made.get("/metrics")
        count = re.search(r"^tidegate_peer_failures_total\S+ (\d+)", text, re.MULTILINE)
        return count is not None and int(count[1]) > 1

    await eventually(again, "asked again")
    assert [one for one in made.daemon.lines if "wants a token" in one] == [line]
    assert not [one for one in made.daemon.lines if TOKEN in one or "wrong" in one]
