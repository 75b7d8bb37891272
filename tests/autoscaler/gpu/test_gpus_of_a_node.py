"""A daemon on a machine with two cards: what happens to traffic when one of them goes bad, and what is shown of it."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

from tests.autoscaler.gpu.conftest import INTERVAL_S, Card, eventually


async def routed(node: Any, runtimes: Any) -> list[int]:
    return [(await node.replica(runtime))["routed_total"] for runtime in runtimes]


async def many(node: Any, cards: Any, count: int, tokens: int = 20) -> None:
    assert set(await asyncio.gather(*(cards.chat(node, tokens) for _ in range(count)))) == {200}


async def test_a_lost_card_takes_its_replica_out_while_the_other_serves(node: Any, runtimes: Any, cards: Any) -> None:
    first, second = runtimes
    streams = await asyncio.gather(*(cards.stream(node, 150) for _ in range(4)))
    assert (await node.replica(first))["in_flight"] > 0
    node.say(Card.LOST.format(0))

    async def out() -> bool:
        return (await node.replica(first))["state"] == "failed"

    took_s = await eventually(out, "out")
    # Two samples; the rest is this machine's other work and our own looking.
    assert took_s < 2 * INTERVAL_S + 1.5, took_s
    view = await node.replica(first)
    assert view["gpu_state"] == "lost"
    assert view["reason"] == view["gpu_reason"]
    assert "GPU 0: the driver says that the GPU is lost" in view["reason"]
    before = await routed(node, runtimes)
    await many(node, cards, 10)
    after = await routed(node, runtimes)
    assert (after[0] - before[0], after[1] - before[1]) == (0, 10)
    for stream in streams:
        assert (await stream.content.read()).endswith(b"data: [DONE]\n\n"), "what ran on it may end"
    assert (await node.replica(second))["state"] == "ready"
    node.say("on nvmlDeviceGetMemoryInfo_v2 gpu=0")
    await node.ready(*runtimes)


async def test_a_throttled_card_gets_less_and_explain_shows_the_card(node: Any, runtimes: Any, cards: Any) -> None:
    node.say(*(line.format(0) for line in Card.THROTTLED))

    async def derated() -> bool:
        view = await node.replica(runtimes[0])
        return view["gpu_state"] == "degraded" and abs(view["coefficients"]["speed_ratio"] - 0.3) < 0.01

    await eventually(derated, "derated to its clock")
    view = await node.replica(runtimes[0])
    assert view["state"] == "ready"
    assert "hw_thermal" in view["gpu_reason"]
    assert "594 of 1980 MHz" in view["gpu_reason"]
    before = await routed(node, runtimes)
    await many(node, cards, 40)
    after = await routed(node, runtimes)
    slow, fast = after[0] - before[0], after[1] - before[1]
    assert slow + fast == 40
    assert slow < fast / 1.5, (slow, fast)
    async with cards.session.post(
        f"{node.daemon.url}/v1/chat/completions", json={"model": "m", "messages": [], "max_tokens": 1}
    ) as reply:
        request_id = reply.headers["X-Request-Id"]
    status, told = await node.get(f"/v1/explain/{request_id}")
    assert status == 200
    assert all("gpu_headroom" in candidate["terms"] for candidate in told["candidates"])
    costs = {candidate["replica_id"]: candidate["cost_s"] for candidate in told["candidates"]}
    assert costs[runtimes[0].url] > costs[runtimes[1].url]


async def test_a_card_that_must_be_reset_drains_its_replica_until_it_is_whole(
    node: Any, runtimes: Any, cards: Any
) -> None:
    first, _ = runtimes
    streams = await asyncio.gather(*(cards.stream(node, 150) for _ in range(4)))
    node.say(Card.ROW_REMAP_FAILED.format(0))

    async def draining() -> bool:
        return (await node.replica(first))["state"] == "draining"

    await eventually(draining, "draining")
    assert "a memory row could not be replaced" in (await node.replica(first))["reason"]
    before = await routed(node, runtimes)
    await many(node, cards, 10)
    assert (await routed(node, runtimes))[0] == before[0]
    for stream in streams:
        assert (await stream.content.read()).endswith(b"data: [DONE]\n\n")
    node.say(Card.WHOLE_AGAIN.format(0))
    await node.ready(*runtimes)


async def test_a_hung_driver_is_seen_and_costs_requests_nothing(node: Any, runtimes: Any, cards: Any) -> None:
    node.say("on nvmlDeviceGetMemoryInfo_v2 hang_ms=600000")

    async def stale() -> bool:
        views = [await node.replica(runtime) for runtime in runtimes]
        named = all("nvmlDeviceGetMemoryInfo" in view["gpu_reason"] for view in views)
        return named and {view["gpu_state"] for view in views} == {"unknown"}

    await eventually(stale, "stale, with the name of the call")
    for runtime in runtimes:
        assert (await node.replica(runtime))["state"] == "ready", "no reading is neither good nor bad"
    before = await routed(node, runtimes)
    await many(node, cards, 20)
    assert all(now > then for now, then in zip(await routed(node, runtimes), before, strict=True))
    _, text = await node.get("/metrics")
    assert 'tidegate_gpu_driver_fault{fault="hung"} 1.0' in text
    assert "tidegate_gpu_memory_used_bytes{" not in text, "old values are not current ones"
    _, message = await node.get("/v1/node")
    assert message["fault"] == "hung"
    assert "nvmlDeviceGetMemoryInfo" in message["hung"]["call"]
    began = time.monotonic()
    node.daemon.signal(signal.SIGTERM)
    assert await node.daemon.end() == 0
    assert time.monotonic() - began < 10, "the hung call is left behind"


async def test_the_node_is_told_with_its_cards_their_owners_and_what_is_in_flight(
    node: Any, runtimes: Any, cards: Any
) -> None:
    streams = await asyncio.gather(*(cards.stream(node, 100) for _ in range(3)))
    status, message = await node.get("/v1/node")
    assert (status, message["version"], message["driver_version"]) == (200, 1, "570.86.15")
    for number, (gpu, runtime) in enumerate(zip(message["gpus"], runtimes, strict=True)):
        port = int(runtime.url.rpartition(":")[2])
        assert (gpu["index"], gpu["state"], gpu["ports"]) == (number, "ok", [port])
        (process,) = gpu["processes"]
        assert (process["pid"], process["used_bytes"]) == (runtime.process.pid, 40 << 30)
        assert gpu["memory_loaded_bytes"] == 40 << 30, "the daemon has declared its replicas' ports"
        assert gpu["memory_foreign_bytes"] == 0
        assert gpu["age_s"] < 1.0
    shares = {share["url"]: share["in_flight"] for share in message["replicas"]}
    assert set(shares) == {runtime.url for runtime in runtimes}
    assert sum(shares.values()) == 3
    _, text = await node.get("/metrics")
    assert text.count("tidegate_gpu_memory_loaded_bytes{") == 2
    assert "DCGM_FI" not in text, "only where the policy says so"
    for stream in streams:
        await stream.content.read()


async def test_a_reload_changes_thresholds_and_says_what_waits_for_a_restart(node: Any, runtimes: Any) -> None:
    settings = f"{{library_path: '{node.library}', interval: {INTERVAL_S}s, deadline: 1s, dcgm_names: true}}"
    node.write(*runtimes, gpus=settings, lb="  admin: {listen: '127.0.0.1:0'}\n")
    node.daemon.signal(signal.SIGHUP)
    await node.daemon.log_line("gpus.dcgm_names needs a restart")
    await node.ready(*runtimes)
    settings = settings.replace("dcgm_names: true", "health: {throttle_after_samples: 100000}")
    node.write(*runtimes, gpus=settings, lb="  admin: {listen: '127.0.0.1:0'}\n")
    lines = len(node.daemon.lines)
    node.daemon.signal(signal.SIGHUP)
    await node.daemon.log_line("policy in force", after=lines)
    node.say(*(line.format(0) for line in Card.THROTTLED))

    async def slow() -> bool:
        return bool((await node.replica(runtimes[0]))["coefficients"]["speed_ratio"] < 0.31)

    await eventually(slow, "derated")
    assert (await node.replica(runtimes[0]))["gpu_state"] == "ok", "degraded only after 100,000 samples now"


async def test_no_driver_is_one_line_of_information(daemon: Any, tmp_path: Any, runtimes: Any, cards: Any) -> None:
    text = "\n".join(f"    - {{url: '{one.url}', models: [m]}}" for one in runtimes)
    (tmp_path / "policy.yaml").write_text(
        "gpus: {library_path: /nonexistent/libnvidia-ml.so.1, interval: 50ms, backoff_initial: 50ms}\n"
        f"lb:\n  listen: 127.0.0.1:0\n  admin: {{listen: '127.0.0.1:0'}}\n  backends:\n{text}\n"
    )
    started = await daemon("run", "--policy", "policy.yaml").start()
    await started.log_line("GPU signals are off")
    await asyncio.sleep(0.5)  # some more attempts
    told = [line for line in started.lines if "GPU signals" in line]
    assert len(told) == 1
    assert "level=info" in told[0]
    assert not [line for line in started.lines if "level=error" in line]
    _, message = await started.get("/v1/node")
    assert (message["fault"], message["gpus"]) == ("library_missing", [])
