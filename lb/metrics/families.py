"""Request counters and histograms as Prometheus families. Works on a snapshot, away from the request path."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from lb.effects import Outcome
from lb.errors import Reason
from lb.metrics.histogram import Histogram
from lb.metrics.labels import NONE, code_label, label_value
from lb.metrics.loop_lag import PauseWatch
from lb.metrics.requests import ModelSeries, RequestCounters

ANSWERED_HERE = "answered_here"
"""Value of `outcome` for requests that Tidegate answered itself, where no attempt at a replica ended."""

_TIMEOUTS: dict[Outcome | Reason, str] = {
    Outcome.CONNECT_TIMEOUT: "connect",
    Outcome.FIRST_BYTE_TIMEOUT: "first_byte",
    Outcome.IDLE_TIMEOUT: "idle",
    Outcome.WRITE_STALLED: "write_stall",
    Reason.REQUEST_TIMEOUT: "request",
    Reason.QUEUE_TIMEOUT: "queue",
    Reason.DEADLINE: "deadline",
}

_HISTOGRAMS: tuple[tuple[str, str, Callable[[ModelSeries], Histogram]], ...] = (
    (
        "tidegate_time_to_first_token_seconds",
        "From the end of a streamed request to the first byte of its reply, waiting included.",
        lambda series: series.ttft_s,
    ),
    (
        "tidegate_inter_token_seconds",
        "Mean gap between output tokens of a streamed request that ended well.",
        lambda series: series.gap_s,
    ),
    (
        "tidegate_request_duration_seconds",
        "From the end of a request to the end of its reply, waiting included, for requests that ended well.",
        lambda series: series.duration_s,
    ),
    (
        "tidegate_queue_wait_seconds",
        "Time that a request waited here for a replica with room; 0 for those that did not wait.",
        lambda series: series.queue_s,
    ),
    (
        "tidegate_prediction_ratio",
        "Actual over predicted time at the replica; 1 is a perfect prediction.",
        lambda series: series.predicted_ratio,
    ),
    (
        "tidegate_prompt_tokens_estimate_ratio",
        "Prompt tokens that the runtime counted over those estimated from bytes.",
        lambda series: series.prompt_ratio,
    ),
    (
        "tidegate_output_tokens_estimate_ratio",
        "Output tokens that the runtime counted over the median expected.",
        lambda series: series.output_ratio,
    ),
)

_COUNTERS: tuple[tuple[str, str, Callable[[ModelSeries], int]], ...] = (
    ("tidegate_prompt_tokens", "Prompt tokens that runtimes counted.", lambda series: series.prompt_tokens),
    (
        "tidegate_cached_prompt_tokens",
        "Prompt tokens that runtimes took from their prefix cache.",
        lambda series: series.cached_tokens,
    ),
    ("tidegate_output_tokens", "Output tokens that runtimes counted.", lambda series: series.output_tokens),
    ("tidegate_retries", "Attempts at a replica after the first of a request.", lambda series: series.retries),
    ("tidegate_request_bytes", "Body bytes received from clients.", lambda series: series.bytes_in),
    ("tidegate_response_bytes", "Body bytes sent to clients.", lambda series: series.bytes_out),
)


def request_families(counters: RequestCounters, pause: Callable[[], None]) -> Iterator[Metric]:
    """Everything that finished requests left behind."""
    yield _requests(counters)
    yield from _rejections_and_timeouts(counters)
    for name, text, total in _COUNTERS:
        family = CounterMetricFamily(name, text, labels=("model",))
        for label, series in counters.by_label.items():
            family.add_metric((label,), total(series))
        yield family
    for name, text, histogram in _HISTOGRAMS:
        histograms = HistogramMetricFamily(name, text, labels=("model",))
        for label, series in counters.by_label.items():
            pause()
            filled = histogram(series)
            histograms.add_metric((label,), filled.buckets(), filled.sum)
        yield histograms


def _requests(counters: RequestCounters) -> Metric:
    family = CounterMetricFamily(
        "tidegate_requests",
        "Finished requests; replica is `none` and outcome `answered_here` where no replica was reached.",
        labels=("model", "replica", "outcome", "code"),
    )
    totals: dict[tuple[str, str, str, str], int] = {}
    for (model, replica, outcome, status, _), count in counters.requests.items():
        labels = (
            model,
            NONE if replica is None else label_value(replica),
            ANSWERED_HERE if outcome is None else outcome.value,
            code_label(status),
        )
        totals[labels] = totals.get(labels, 0) + count
    for labels, count in totals.items():
        family.add_metric(labels, count)
    return family


def _rejections_and_timeouts(counters: RequestCounters) -> Iterator[Metric]:
    rejections: dict[str, int] = {reason.value: 0 for reason in Reason}
    timeouts: dict[str, int] = dict.fromkeys(_TIMEOUTS.values(), 0)
    for reason, count in counters.refusals.items():
        rejections[reason.value] += count
        if reason in _TIMEOUTS:
            timeouts[_TIMEOUTS[reason]] += count
    for (_, _, outcome, _, cause), count in counters.requests.items():
        if cause is not None and outcome is None:
            rejections[cause.value] += count
        kind = _TIMEOUTS.get(outcome) if outcome is not None else _TIMEOUTS.get(cause) if cause is not None else None
        if kind is not None:
            timeouts[kind] += count
    family = CounterMetricFamily(
        "tidegate_rejections", "Requests that Tidegate refused itself, by the reason that the client was told.",
        labels=("reason",),
    )  # fmt: skip
    for name, count in rejections.items():
        family.add_metric((name,), count)
    yield family
    family = CounterMetricFamily("tidegate_timeouts", "Requests that ended at a deadline.", labels=("kind",))
    for name, count in timeouts.items():
        family.add_metric((name,), count)
    yield family


def pause_families(watch: PauseWatch) -> Iterator[Metric]:
    """Event loop and garbage collector."""
    for name, text, histogram in (
        ("tidegate_event_loop_lag_seconds", "How late a timer of the event loop fires.", watch.loop_lag_s.copy()),
        ("tidegate_gc_pause_seconds", "Length of garbage collections.", watch.gc_pause_s.copy()),
    ):
        yield HistogramMetricFamily(name, text, buckets=histogram.buckets(), sum_value=histogram.sum)
    yield GaugeMetricFamily(
        "tidegate_event_loop_lag_max_seconds", "Latest timer since the last scrape.", value=watch.take_max()
    )
