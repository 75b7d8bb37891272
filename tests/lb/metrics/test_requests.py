"""What finished requests leave behind, in how much memory and at what cost."""

from __future__ import annotations

import dataclasses
import time

import pytest

from lb.effects import Outcome
from lb.errors import Reason
from lb.metrics.histogram import LATENCY_S, RATIO, Histogram
from lb.metrics.labels import MAX_MODELS, label_value
from lb.metrics.requests import GONE_S, MAX_REQUEST_SERIES, RequestCounters
from lb.proxy.observer import RequestRecord
from lb.request import SurfaceName

RECORD = RequestRecord(
    request_id="r",
    method="POST",
    path="/v1/chat/completions",
    client="10.0.0.9",
    surface=SurfaceName.CHAT,
    model="llama",
    tenant="default",
    status=200,
    outcome=Outcome.OK,
    reason=None,
    replica_id="a",
    decision_reason="least work",
    attempts=1,
    queue_s=0.0,
    ttft_s=0.2,
    duration_s=1.2,
    bytes_in=100,
    bytes_out=2000,
    events=51,
    est_prompt_tokens=20.0,
    est_output_tokens=100.0,
    prompt_tokens=25,
    output_tokens=101,
    cached_tokens=5,
    predicted_s=1.0,
)


def counted(*changes: dict[str, object]) -> RequestCounters:
    counters = RequestCounters()
    for change in changes:
        counters.finished(dataclasses.replace(RECORD, **change))  # type: ignore[arg-type]
    return counters


def test_a_stream_fills_every_histogram() -> None:
    series = counted({"queue_s": 0.1}).by_label["llama"]
    assert series.ttft_s.sum == 0.2
    assert series.duration_s.sum == 1.2
    assert series.queue_s.sum == 0.1
    assert series.gap_s.sum == pytest.approx(0.01)  # 1.0 s over 100 gaps: the runtime's count, not the 51 events
    assert series.predicted_ratio.sum == pytest.approx(1.1)
    assert series.prompt_ratio.sum == 1.25
    assert series.output_ratio.sum == 1.01
    assert (series.prompt_tokens, series.cached_tokens, series.output_tokens) == (25, 5, 101)
    assert (series.bytes_in, series.bytes_out) == (100, 2000)


def test_without_usage_events_stand_in_for_the_gap_and_tokens_are_not_counted() -> None:
    series = counted({"prompt_tokens": None, "output_tokens": None, "cached_tokens": None}).by_label["llama"]
    assert series.gap_s.sum == pytest.approx(1.0 / 50)
    assert (series.prompt_tokens, sum(series.prompt_ratio.counts), sum(series.output_ratio.counts)) == (0, 0, 0)


def test_a_unary_reply_has_no_time_to_first_token_and_no_gap() -> None:
    series = counted({"events": 0}).by_label["llama"]
    assert sum(series.ttft_s.counts) == sum(series.gap_s.counts) == 0
    assert sum(series.duration_s.counts) == 1


def test_a_failure_does_not_make_the_latency_look_good() -> None:
    series = counted({}, {"status": 500, "outcome": Outcome.SERVER_ERROR, "duration_s": 0.001}).by_label["llama"]
    assert sum(series.duration_s.counts) == 1
    assert sum(series.queue_s.counts) == 2


def test_retries_and_rejections_are_counted() -> None:
    rejected = {"outcome": None, "reason": Reason.QUEUE_FULL, "status": 429, "replica_id": None}
    counters = counted({"attempts": 3}, rejected, {**rejected, "queue_s": 2.0, "reason": Reason.QUEUE_TIMEOUT})
    series = counters.by_label["llama"]
    assert series.retries == 2
    assert series.queue_s.sum == 2.0
    assert counters.requests[("llama", None, None, 429, Reason.QUEUE_FULL)] == 1


def test_d10_names_that_no_replica_served_share_one_series() -> None:
    refused = {"outcome": Outcome.CLIENT_ERROR, "status": 404}
    counters = counted(*({"model": f"junk-{number}", **refused} for number in range(10_000)))
    assert set(counters.by_label) == {"other"}
    assert sum(counters.requests.values()) == 10_000
    assert len(counters.requests) == 1


def test_d10_a_listed_model_has_its_series_before_it_was_served() -> None:
    counters = RequestCounters()
    counters.prune({"a"}, {"listed"}, 0.0)
    rejected = dataclasses.replace(RECORD, model="listed", outcome=None, reason=Reason.QUEUE_FULL, replica_id=None)
    counters.finished(rejected)
    assert ("listed", None, None, 200, Reason.QUEUE_FULL) in counters.requests


def test_d10_even_served_names_are_bounded() -> None:
    counters = counted(*({"model": f"any-{number}"} for number in range(5000)), {"model": "x" * 100_000})
    assert len(counters.models) == MAX_MODELS
    assert len(counters.by_label) == MAX_MODELS + 1
    assert sum(counters.other.duration_s.counts) == 5001 - MAX_MODELS


def test_d10_replicas_and_codes_are_bounded() -> None:
    changes = ({"replica_id": str(number % 300), "status": 100 + number // 300} for number in range(30_000))
    counters = counted(*changes)
    assert len(counters.requests) <= MAX_REQUEST_SERIES + 10
    assert sum(counters.requests.values()) == 30_000


def test_names_that_look_alike_after_cutting_share_a_series() -> None:
    counters = counted({"model": "m" * 200 + "1"}, {"model": "m" * 200 + "2"}, {"model": "other"}, {"model": "none"})
    assert set(counters.by_label) == {"m" * 128, "other", "none"}
    assert sum(counters.by_label["m" * 128].duration_s.counts) == 2


def test_series_of_a_replica_that_is_gone_end_after_a_while() -> None:
    counters = counted({"replica_id": "a"}, {"replica_id": "b"}, {"replica_id": None, "outcome": None})
    counters.prune({"a"}, (), 0.0)
    counters.prune({"a"}, (), GONE_S - 1)
    assert len(counters.requests) == 3
    counters.prune({"a", "b"}, (), GONE_S - 1)  # it came back
    counters.prune({"a"}, (), GONE_S)
    counters.prune({"a"}, (), 2 * GONE_S - 1)
    assert len(counters.requests) == 3
    counters.prune({"a"}, (), 2 * GONE_S)
    assert {key[1] for key in counters.requests} == {"a", None}


def test_a_copy_does_not_change() -> None:
    counters = counted({})
    copy = counters.copy()
    counters.finished(RECORD)
    counters.refused(Reason.BAD_REQUEST)
    assert sum(copy.requests.values()) == 1
    assert sum(copy.by_label["llama"].ttft_s.counts) == 1
    assert copy.refusals == {}


@pytest.mark.parametrize("value", [0.0, 0.005, 0.0051, 3600.0, 1e9])
def test_a_bucket_holds_what_is_at_most_its_bound(value: float) -> None:
    histogram = Histogram(LATENCY_S)
    histogram.observe(value)
    for bound, count in histogram.buckets():
        assert count == (1.0 if value <= float(bound) else 0.0)


@pytest.mark.parametrize("bounds", [LATENCY_S, RATIO])
def test_bounds_rise(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


def test_l13_labels_are_printable_and_short() -> None:
    assert label_value('a"b\\c') == 'a"b\\c'
    assert label_value("a\r\nb\x1b\ud800\u2028") == "a??b???"
    assert len(label_value("é" * 500)) == 128


def test_a_request_costs_microseconds() -> None:
    """The budget is 3 us on the reference core; the fastest of many rounds, doubled for slower machines."""
    counters = counted({})
    rounds = []
    for _ in range(30):
        started = time.perf_counter()
        for _ in range(1000):
            counters.finished(RECORD)
        rounds.append(time.perf_counter() - started)
    assert min(rounds) / 1000 < 6e-6
