"""Numbers that cannot be right, names that are gone, counters that start again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.runtime import Answer, LoadSource, Metric, Series
from lb.runtime_reader import LIMITS, LoadReader, believable, excerpt, parse_json
from lb.runtimes import RUNTIMES
from tests.lb.runtimes.recordings import recorded

VLLM = RUNTIMES["vllm"].loads[0]
GOOD = b"vllm:num_requests_running 3\nvllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.5\n"


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-1", "1e308", "1e400", "garbage", ""])
def test_a_number_that_cannot_be_right_is_dropped_and_named(value: str) -> None:
    text = GOOD.replace(b"running 3", b"running " + value.encode())
    reading = LoadReader(VLLM).read(Answer(200, text))
    assert reading.load is not None
    assert reading.load.running is None
    assert reading.load.waiting == 1
    assert reading.dropped == ("running",)


def test_one_bad_rank_spoils_the_sum() -> None:
    text = b'vllm:num_requests_running{engine="0"} NaN\nvllm:num_requests_running{engine="1"} 5\n' + GOOD[28:]
    reading = LoadReader(VLLM).read(Answer(200, text))
    assert reading.dropped == ("running",)


def test_ranks_whose_sum_overflows_are_dropped() -> None:
    text = b'vllm:num_requests_running{engine="0"} 1e308\nvllm:num_requests_running{engine="1"} 1e308\n' + GOOD[28:]
    assert LoadReader(VLLM).read(Answer(200, text)).dropped == ("running",)


@pytest.mark.parametrize(("usage", "read"), [("1.02", 1.0), ("1", 1.0), ("0", 0.0), ("1.2", None), ("87", None)])
def test_a_ratio_above_one_is_rounding_or_refused(usage: str, read: float | None) -> None:
    text = GOOD.replace(b"perc 0.5", b"perc " + usage.encode())
    reading = LoadReader(VLLM).read(Answer(200, text))
    assert reading.load is not None
    assert reading.load.kv_usage_ratio == read


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<!DOCTYPE html><html><body>Sign in</body></html>"),
        Answer(200, b"\x00\xff\xfe" * 1000),
        Answer(200, b""),
        Answer(200, b'{"metrics": "moved"}'),
        Answer(404, b"404 page not found"),
        Answer(501, b'{"error":{"code":501,"message":"This server does not support metrics endpoint."}}'),
    ],
)
def test_what_is_no_exposition_says_why(answer: Answer) -> None:
    reading = LoadReader(VLLM).read(answer)
    assert reading.load is None
    assert "/metrics" in reading.reason
    assert len(reading.reason) < 300
    assert reading.reason.isprintable()


def test_a_renamed_metric_is_a_missing_signal() -> None:
    text = GOOD.replace(b"num_requests_waiting", b"num_waiting_requests")
    reading = LoadReader(VLLM).read(Answer(200, text))
    assert reading.load is not None
    assert reading.load.waiting is None
    assert reading.missing == ("vllm:num_requests_waiting",)
    everything = LoadReader(VLLM).read(Answer(200, text.replace(b"vllm:", b"vllm_")))
    assert everything.load is None
    assert "signal missing on /metrics: no vllm:num_requests_running, vllm:num_requests_waiting" in everything.reason


def test_nothing_but_nonsense_is_no_reading() -> None:
    reading = LoadReader(VLLM).read(Answer(200, b"vllm:num_requests_running NaN\n"))
    assert reading.load is None
    assert reading.reason == "no usable number on /metrics"
    assert reading.dropped == ("running",)


def test_ten_megabytes_are_read_as_far_as_the_cap() -> None:
    filler = b"".join(b'other{i="%d"} 1\n' % i for i in range(600_000))
    assert len(filler) > 10_000_000
    reading = LoadReader(VLLM).read(Answer(200, GOOD + filler, truncated=True))
    assert reading.load is not None
    assert reading.load.running == 3


def test_a_million_series_of_a_wanted_name_are_refused() -> None:
    text = b"".join(b'vllm:num_requests_running{i="%d"} 1\n' % i for i in range(20_000))
    reading = LoadReader(VLLM).read(Answer(200, text))
    assert reading.load is None
    assert reading.reason == "more than 1024 samples of vllm:num_requests_running"


def test_a_counter_goes_on_after_a_restart() -> None:
    reader = LoadReader(VLLM)

    def total(value: int) -> float | None:
        load = reader.read(Answer(200, b"vllm:generation_tokens_total %d\n" % value)).load
        return load.output_tokens_total if load else None

    assert [total(v) for v in (100, 150, 10, 30, 0, 5)] == [100, 150, 160, 180, 180, 185]


@given(st.lists(st.integers(min_value=0, max_value=10**9), min_size=2, max_size=50))
def test_a_counter_never_runs_backwards(values: list[int]) -> None:
    reader = LoadReader(VLLM)
    totals = []
    for value in values:
        load = reader.read(Answer(200, b"vllm:prompt_tokens_total %d\n" % value)).load
        assert load is not None
        assert load.prompt_tokens_total is not None
        totals.append(load.prompt_tokens_total)
    assert totals == sorted(totals)


def test_the_prefix_hit_ratio_is_that_of_the_recent_past() -> None:
    reader = LoadReader(VLLM)

    def ratio(hits: int, queries: int) -> float | None:
        text = GOOD + b"vllm:prefix_cache_hits_total %d\nvllm:prefix_cache_queries_total %d\n" % (hits, queries)
        load = reader.read(Answer(200, text)).load
        assert load is not None
        return load.prefix_hit_ratio

    assert ratio(1_000_000, 10_000_000) is None  # hours may lie behind the first reading
    assert ratio(1_000_080, 10_000_100) == pytest.approx(0.8)
    assert ratio(1_000_080, 10_000_100) == pytest.approx(0.8)  # nothing happened, nothing changes
    for step in range(1, 100):
        last = ratio(1_000_080, 10_000_100 + 100 * step)
    assert last == pytest.approx(0.0, abs=0.01)
    assert ratio(0, 0) is None  # restarted
    assert ratio(50, 100) == pytest.approx(0.5)


def test_facts_fill_what_the_reading_does_not_say() -> None:
    reader = LoadReader(RUNTIMES["llamacpp"].loads[0], {"max_running": 4.0})
    load = reader.read(recorded("llamacpp/metrics_idle.txt")).load
    assert load is not None
    assert load.max_running == 4
    nothing = reader.read(Answer(200, b"nothing here"))
    assert nothing.load is None


def test_facts_alone_are_no_reading() -> None:
    source = LoadSource("/m", metrics=(Metric("running", (Series("a"),)),))
    assert LoadReader(source, {"max_running": 4.0}).read(Answer(200, b"a NaN\n")).load is None


@pytest.mark.parametrize("value", [True, "5", None, [], {}, float("nan"), float("inf"), -0.001, 10**400])
def test_unbelievable(value: object) -> None:
    assert believable("running", value) is None


@given(st.floats(min_value=0, max_value=1))
def test_ratios_are_believable(value: float) -> None:
    assert believable("kv_usage_ratio", value) == value


def test_every_number_of_a_load_has_a_limit() -> None:
    assert all(believable(field, 0) == 0 and believable(field, 1e300) is None for field in LIMITS)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 10**6, b"1" * 10**6, b'{"a":', b"\xff\xfe", b"NaN,"])
def test_json_that_is_none(body: bytes) -> None:
    assert parse_json(body) is None


@given(st.binary(max_size=400))
def test_excerpts_are_printable(body: bytes) -> None:
    text = excerpt(body)
    assert text == "" or text.isprintable()
    assert len(text) <= 80
