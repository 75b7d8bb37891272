"""What the feeds learned is shown: by a replica on a real socket, read by the real feeds."""

from __future__ import annotations

import random

from lb.feeds.runtime_feeds import RuntimeFeeds
from tests.lb.admin.conftest import Admin, MakeAdmin
from tests.lb.catalogue.world import eventually
from tests.lb.feeds.replica import FAST, vllm


async def test_totals_and_what_each_replica_tells(make_admin: MakeAdmin) -> None:
    replica = vllm(metrics="vllm:num_requests_running 3\nvllm:num_requests_waiting 1\n")
    await replica.start()
    admin = await make_admin(with_feeds=lambda gateway: RuntimeFeeds(gateway, FAST, rng=random.Random(1)))
    endpoint = replica.endpoint(runtime="vllm")
    admin.gateway.set_source("static", [endpoint])
    feeds = admin.feeds
    assert feeds is not None
    await feeds.start()
    try:
        await eventually(lambda: feeds.counts.readings >= 2)
        status, shown = await admin.call("GET", "/v1/feeds")
    finally:
        await feeds.stop()
        await replica.stop()
    assert status == 200
    assert shown["probes"]["ready"] >= 1
    assert shown["readings"] >= 2
    assert shown["failed"] == {}
    assert {"runtime": "vllm", "metric": "vllm:kv_cache_usage_perc"}.items() <= shown["missing"][0].items()
    told = shown["replicas"][endpoint.id]
    assert (told["runtime"], told["load_path"]) == ("vllm", "/metrics")
    assert {"running", "waiting"} <= set(told["present"])


async def test_a_replica_that_was_not_recognised_yet_is_null(admin: Admin) -> None:
    status, shown = await admin.call("GET", "/v1/feeds")
    assert (status, shown["readings"], shown["replicas"]) == (200, 0, {"http://127.0.0.1:8001": None})
