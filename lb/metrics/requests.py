"""What finished requests leave behind. `finished` is on the request path: dict look-ups and additions, no objects."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from typing import TYPE_CHECKING

from lb.effects import Outcome
from lb.errors import Reason
from lb.metrics.histogram import GAP_S, LATENCY_S, RATIO, Histogram
from lb.metrics.labels import MAX_MODELS, NONE, OTHER, label_value

if TYPE_CHECKING:
    from lb.proxy.observer import RequestRecord

MAX_REQUEST_SERIES = 20_000
"""Series of the requests counter; what comes beyond is counted under `other`. 200 replicas x 10 models x 5 endings
are 10,000."""
MAX_NAME_CHARS = 1024
"""Longest model name that is remembered."""
GONE_S = 300.0
"""Series of a replica are kept this long after it is gone, so that every scraper has seen their last value."""

RequestKey = tuple[str, str | None, Outcome | None, int, Reason | None]
"""Model label, replica id, outcome, status, reason."""
_SERIES = (
    "bytes_in", "bytes_out", "cached_tokens", "duration_s", "gap_s", "label", "output_ratio", "output_tokens",
    "predicted_ratio", "prompt_ratio", "prompt_tokens", "queue_s", "retries", "ttft_s",
)  # fmt: skip


class ModelSeries:
    """All that is counted of one model."""

    __slots__ = _SERIES

    def __init__(self, label: str) -> None:
        self.label = label
        self.ttft_s = Histogram(LATENCY_S)
        self.gap_s = Histogram(GAP_S)
        self.duration_s = Histogram(LATENCY_S)
        self.queue_s = Histogram(LATENCY_S)
        self.predicted_ratio = Histogram(RATIO)
        self.prompt_ratio = Histogram(RATIO)
        self.output_ratio = Histogram(RATIO)
        self.prompt_tokens = self.cached_tokens = self.output_tokens = 0
        self.bytes_in = self.bytes_out = 0
        self.retries = 0

    def copy(self) -> ModelSeries:
        twin = ModelSeries(self.label)
        for name in _SERIES:
            value = getattr(self, name)
            setattr(twin, name, value.copy() if isinstance(value, Histogram) else value)
        return twin


class RequestCounters:
    """Counts finished requests per model and replica, in bounded memory.

    A model has series of its own once a replica lists it or has served it; other names are chosen by clients and are
    counted together.
    """

    def __init__(self) -> None:
        self.requests: dict[RequestKey, int] = {}
        self.refusals: dict[Reason, int] = {}
        self.other = ModelSeries(OTHER)
        self.models: dict[str | None, ModelSeries] = {}
        self.by_label: dict[str, ModelSeries] = {OTHER: self.other}
        """Each series once: names that are equal after cutting share one."""
        self._listed: Collection[str] = ()
        self._gone_since: dict[str, float] = {}

    def finished(self, record: RequestRecord) -> None:
        model = self.models.get(record.model)
        if model is None:
            model = self._series(record)
        outcome = record.outcome
        key = (model.label, record.replica_id, outcome, record.status, record.reason)
        requests = self.requests
        if key in requests:
            requests[key] += 1
        else:
            self._first(key)
        model.bytes_in += record.bytes_in
        model.bytes_out += record.bytes_out
        if outcome is None:
            if record.queue_s > 0.0:
                model.queue_s.observe(record.queue_s)
            return
        if record.attempts > 1:
            model.retries += record.attempts - 1
        # Observations are written out here: a call costs as much as the bisection.
        queue_s = record.queue_s
        histogram = model.queue_s
        histogram.counts[bisect_left(LATENCY_S, queue_s)] += 1
        histogram.sum += queue_s
        ttft_s = record.ttft_s
        if record.events and ttft_s is not None:
            histogram = model.ttft_s
            histogram.counts[bisect_left(LATENCY_S, ttft_s)] += 1
            histogram.sum += ttft_s
        if outcome is Outcome.OK:
            self._succeeded(model, record, queue_s, ttft_s)

    def _succeeded(self, model: ModelSeries, record: RequestRecord, queue_s: float, ttft_s: float | None) -> None:
        duration_s = record.duration_s
        histogram = model.duration_s
        histogram.counts[bisect_left(LATENCY_S, duration_s)] += 1
        histogram.sum += duration_s
        predicted_s = record.predicted_s
        if predicted_s > 0.0:
            ratio = (duration_s - queue_s) / predicted_s
            histogram = model.predicted_ratio
            histogram.counts[bisect_left(RATIO, ratio)] += 1
            histogram.sum += ratio
        tokens = record.prompt_tokens
        if tokens is not None:
            model.prompt_tokens += tokens
            if record.cached_tokens is not None:
                model.cached_tokens += record.cached_tokens
            if record.est_prompt_tokens > 0.0:
                model.prompt_ratio.observe(tokens / record.est_prompt_tokens)
        tokens = record.output_tokens
        if tokens is not None:
            model.output_tokens += tokens
            if record.est_output_tokens > 0.0:
                model.output_ratio.observe(tokens / record.est_output_tokens)
        if ttft_s is not None and record.events:
            # An event may carry several tokens or none, so it stands in only where the runtime did not count.
            gaps = (tokens if tokens is not None else record.events) - 1
            if gaps > 0:
                gap_s = (duration_s - ttft_s) / gaps
                histogram = model.gap_s
                histogram.counts[bisect_left(GAP_S, gap_s)] += 1
                histogram.sum += gap_s

    def refused(self, reason: Reason) -> None:
        self.refusals[reason] = self.refusals.get(reason, 0) + 1

    def _series(self, record: RequestRecord) -> ModelSeries:
        name = record.model
        if name is not None and name not in self._listed and record.outcome is not Outcome.OK:
            return self.other
        if len(self.models) >= MAX_MODELS or (name is not None and len(name) > MAX_NAME_CHARS):
            return self.other
        label = NONE if name is None else label_value(name)
        series = self.by_label.get(label)
        if series is None:
            series = self.by_label[label] = ModelSeries(label)
        self.models[name] = series
        return series

    def _first(self, key: RequestKey) -> None:
        if len(self.requests) >= MAX_REQUEST_SERIES:
            key = (OTHER, OTHER if key[1] is not None else None, key[2], 0, key[4])
        self.requests[key] = self.requests.get(key, 0) + 1

    def prune(self, replicas: Collection[str], listed: Collection[str], now: float) -> None:
        """Forget replicas that are gone for a while. `listed`: models that replicas say they serve."""
        self._listed = listed
        present = {key[1] for key in self.requests if key[1] is not None and key[1] != OTHER}
        gone = present.difference(replicas)
        self._gone_since = {replica: self._gone_since.get(replica, now) for replica in gone}
        over = {replica for replica, since in self._gone_since.items() if now - since >= GONE_S}
        if over:
            self.requests = {key: count for key, count in self.requests.items() if key[1] not in over}

    def copy(self) -> RequestCounters:
        """A snapshot that another thread may read; it is not written to."""
        twin = RequestCounters()
        twin.requests = dict(self.requests)
        twin.refusals = dict(self.refusals)
        twin.by_label = {label: series.copy() for label, series in self.by_label.items()}
        return twin
