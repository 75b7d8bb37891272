"""Applies an engine's table to what its server answered: which engine, ready or not, which models, how loaded.

Pure: the shells in `lb.feeds` fetch, this judges. Nothing here raises on what a server says; a number that cannot be
right is dropped and named, and a reading without a single number says why.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lb.exposition import Sample, TooManySeriesError, read_samples
from lb.runtime import (
    Answer,
    Combine,
    Facts,
    JsonPath,
    Listing,
    LoadSource,
    Mark,
    Metric,
    ProbeStatus,
    Readiness,
    RuntimeLoad,
    RuntimeSpec,
    Series,
)

_REQUESTS = 1e6
_TOKENS = 1e12
LIMITS: Mapping[str, float] = {
    "running": _REQUESTS,
    "waiting": _REQUESTS,
    "waiting_tokens": _TOKENS,
    "kv_usage_ratio": 1.0,
    "kv_capacity_tokens": _TOKENS,
    "max_running": _REQUESTS,
    "prompt_tokens_total": 1e18,
    "output_tokens_total": 1e18,
    "prefix_hit_ratio": 1.0,
}
"""Largest believable value of each number of RuntimeLoad; the smallest is 0. A million requests on one replica, or a
trillion tokens of KV cache, is a thousand times what any card holds: such a reading is an error (1e308), not a load."""
_RATIO_SLACK = 1.05
"""Ratios a little above 1 are rounding (used blocks counted a step after free ones) and read as 1."""
_WHOLE = frozenset({"kv_capacity_tokens", "max_running"})
_COUNTERS = frozenset({"prompt_tokens_total", "output_tokens_total"})
_QUOTIENT_MEMORY = 0.95
"""What a quotient of counters keeps of its past at each reading: half of it after 14 readings, some 7 s."""
_MAX_NAMES = 1000
_MAX_NAME = 256


def parse_json(body: bytes) -> Any:
    """The document, or None: garbage, HTML, numbers of a million digits, brackets a million deep."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def at_path(document: Any, path: JsonPath) -> Any:
    """What is at `path`, or None."""
    for key in path:
        if isinstance(key, str) and isinstance(document, dict):
            document = document.get(key)
        elif isinstance(key, int) and isinstance(document, list) and -len(document) <= key < len(document):
            document = document[key]
        else:
            return None
    return document


def excerpt(body: bytes, limit: int = 80) -> str:
    """The beginning of a body in one printable line, for reasons."""
    text = body[: limit * 2].decode(errors="replace")
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def is_marked(mark: Mark, answer: Answer) -> bool:
    """Whether this answer to `mark.path` shows the engine."""
    if mark.statuses and answer.status not in mark.statuses:
        return False
    if mark.server and not answer.server.lower().startswith(mark.server):
        return False
    if mark.contains and mark.contains not in answer.body:
        return False
    if mark.at:
        value = at_path(parse_json(answer.body), mark.at)
        if value is None or (mark.starts and not (isinstance(value, str) and value.startswith(mark.starts))):
            return False
    return True


def identify(specs: Iterable[RuntimeSpec], path: str, answer: Answer) -> str | None:
    """Name of the first engine that this answer shows, or None."""
    for spec in specs:
        if any(mark.path == path and is_marked(mark, answer) for mark in spec.marks):
            return spec.name
    return None


def judge(readiness: Readiness, answer: Answer, *, was_ready: bool = False) -> tuple[ProbeStatus, str]:
    """Read an answer to the readiness path. The reason is empty where there is nothing to say."""
    status = answer.status
    if status in readiness.ready:
        return ProbeStatus.READY, ""
    if status in (401, 403):
        # It answers, so it lives; a probe without the right key must not take a serving replica out.
        return ProbeStatus.READY, f"{status}: the probe has no key for it, so only that it answers is known"
    may_load = not (readiness.loading_once and was_ready)
    if may_load and status in readiness.loading and readiness.loading_body.lower() in answer.body.lower():
        return ProbeStatus.LOADING, f"{status} {excerpt(answer.body)}".rstrip()
    if status in readiness.alive:
        return ProbeStatus.READY, f"{status}: no {readiness.path} here, so only that it answers is known"
    return ProbeStatus.FAILED, f"{status} {excerpt(answer.body)}".rstrip()


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing said."""

    models: tuple[str, ...]
    adapters: tuple[str, ...] = ()


def read_models(listing: Listing, answer: Answer) -> Listed | None:
    """Models of a listing, in its order, without repeats; None if this is no listing."""
    if answer.status != 200:
        return None
    items = at_path(parse_json(answer.body), listing.items)
    if not isinstance(items, list):
        return None
    models: dict[str, None] = {}
    adapters: dict[str, None] = {}
    for item in items[:_MAX_NAMES]:
        if not isinstance(item, dict):
            continue
        if any(str(item.get(key, "")) not in allowed for key, allowed in listing.states.items()):
            continue
        extra = item.get(listing.aliases) if listing.aliases else None
        names = [item.get(listing.name), *(extra if isinstance(extra, list) else ())]
        for name in names:
            if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
                continue
            models[name] = None
            if listing.drop_suffix and name.endswith(listing.drop_suffix):
                models[name.removesuffix(listing.drop_suffix)] = None
            if listing.parent and item.get(listing.parent):
                adapters[name] = None
    return Listed(tuple(models), tuple(adapters))


def read_facts(facts: Facts, answer: Answer) -> dict[str, float]:
    """Fields of RuntimeLoad that do not change while it runs."""
    if answer.status != 200:
        return {}
    document = parse_json(answer.body)
    values = {name: believable(name, at_path(document, path)) for name, path in facts.fields.items()}
    return {name: value for name, value in values.items() if value}


def believable(field: str, value: object) -> float | None:
    """The number, or None if it cannot be one of this field."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(number) or number < 0:
        return None
    limit = LIMITS[field]
    if number <= limit:
        return number
    return limit if limit == 1.0 and number <= _RATIO_SLACK else None


@dataclass(frozen=True, slots=True)
class Reading:
    """One attempt to read the load."""

    load: RuntimeLoad | None
    """None: not a single number came of it, see `reason`."""
    reason: str = ""
    missing: tuple[str, ...] = ()
    """Required metrics that are not there, by the name that was looked for first."""
    dropped: tuple[str, ...] = ()
    """Fields whose values were there and could not be right: NaN, infinite, negative, absurd."""


class LoadReader:
    """Reads one replica's load from one source. Holds what outlives a reading: the counters' past."""

    def __init__(self, source: LoadSource, facts: Mapping[str, float] | None = None) -> None:
        self.source = source
        self._facts = dict(facts or {})
        self._last: dict[str, float] = {}
        self._offset: dict[str, float] = {}
        self._quotients: dict[str, tuple[float, float, float, float]] = {}

    def read(self, answer: Answer) -> Reading:
        """Judge one answer to `source.path`."""
        if answer.status != 200:
            return Reading(None, f"{answer.status} on {self.source.path}: {excerpt(answer.body)}".rstrip(": "))
        if self.source.metrics:
            return self._read_text(answer)
        return self._read_json(answer)

    def _read_json(self, answer: Answer) -> Reading:
        read = self.source.read
        document = None if answer.truncated else parse_json(answer.body)
        if document is None or read is None:
            what = "too long" if answer.truncated else "not JSON"
            return Reading(None, f"{self.source.path} is {what}: {excerpt(answer.body)}")
        raw = read(document)
        if raw is None:
            return Reading(None, f"{self.source.path} is JSON of another kind: {excerpt(answer.body)}")
        return self._assemble(raw, (), ())

    def _read_text(self, answer: Answer) -> Reading:
        metrics = self.source.metrics
        names = {s.name for m in metrics for s in (*m.series, m.times, m.per) if s is not None}
        try:
            samples = read_samples(answer.body, sorted(names), truncated=answer.truncated)
        except TooManySeriesError as error:
            return Reading(None, str(error))
        raw: dict[str, object] = {}
        missing: list[str] = []
        dropped: list[str] = []
        for metric in metrics:
            value = self._value(metric, samples)
            if value is not None and math.isnan(value):
                dropped.append(metric.field)
            elif value is not None:
                raw[metric.field] = value
            elif metric.required:
                missing.append(metric.series[0].name)
        if not raw and not dropped:
            wanted = ", ".join(missing) or ", ".join(m.series[0].name for m in metrics[:3])
            return Reading(None, f"signal missing on {self.source.path}: no {wanted} in {excerpt(answer.body)!r}")
        return self._assemble(raw, tuple(missing), tuple(dropped))

    def _value(self, metric: Metric, samples: Mapping[str, list[Sample]]) -> float | None:
        """None: absent. NaN: there, and not a number that can be used."""
        values = [value for s in metric.series if (value := _combined(s, metric, samples)) is not None]
        if not values:
            return None
        value = math.fsum(values) if metric.every else values[0]
        if metric.times is not None:
            factor = _combined(metric.times, metric, samples)
            return None if factor is None else value * factor
        if metric.per is not None:
            base = _combined(metric.per, metric, samples)
            return None if base is None else self._quotient(metric.field, value, base)
        return value

    def _quotient(self, field: str, top: float, base: float) -> float | None:
        """Quotient of two counters' recent increments. The first reading says nothing: hours may lie behind it."""
        if not (math.isfinite(top) and math.isfinite(base)):
            return math.nan
        past = self._quotients.get(field)
        if past is None or top < past[0] or base < past[1]:
            self._quotients[field] = (top, base, 0.0, 0.0)
            return None
        tops = past[2] * _QUOTIENT_MEMORY + top - past[0]
        bases = past[3] * _QUOTIENT_MEMORY + base - past[1]
        self._quotients[field] = (top, base, tops, bases)
        return min(tops / bases, 1.0) if bases > 1e-9 else None

    def _assemble(self, raw: Mapping[str, object], missing: tuple[str, ...], dropped: tuple[str, ...]) -> Reading:
        fields: dict[str, Any] = {}
        bad = list(dropped)
        for name, value in raw.items():
            if name in ("loaded_models", "adapters"):
                fields[name] = value
                continue
            number = believable(name, value)
            if number is None:
                if value is not None:
                    bad.append(name)
                continue
            fields[name] = number
        for name, fact in self._facts.items():
            fields.setdefault(name, fact)
        for name in _COUNTERS & fields.keys():
            fields[name] = self._continued(name, fields[name])
        for name in _WHOLE & fields.keys():
            # A capacity of nothing is what engines say before they know.
            fields[name] = int(fields[name]) or None
        if not any(value is not None for name, value in fields.items() if name not in self._facts):
            return Reading(None, f"no usable number on {self.source.path}", missing, tuple(bad))
        inferred = (self.source.inferred & fields.keys()) | (self.source.assumed.keys() - fields.keys())
        for name, value in self.source.assumed.items():
            fields.setdefault(name, int(value) if name in _WHOLE else value)
        return Reading(RuntimeLoad(**fields, inferred=frozenset(inferred)), "", missing, tuple(bad))

    def _continued(self, name: str, value: float) -> float:
        """A counter that starts again from zero goes on from where it was, as Prometheus' increase() sees it."""
        last = self._last.get(name)
        if last is not None and value < last:
            self._offset[name] = self._offset.get(name, 0.0) + last
        self._last[name] = value
        return self._offset.get(name, 0.0) + value


def _combined(series: Series, metric: Metric, samples: Mapping[str, list[Sample]]) -> float | None:
    """One number from all samples of a series that have the labels asked for; None if there is none."""
    groups: dict[tuple[tuple[str, str], ...], float] = {}
    for number, sample in enumerate(samples.get(series.name, ())):
        if any(sample.labels.get(key) != value for key, value in series.where):
            continue
        value = _label_product(sample, metric.labels) if metric.labels else sample.value
        if metric.same:
            group = tuple(sorted((k, v) for k, v in sample.labels.items() if k not in metric.same))
        else:
            group = (("", str(number)),)
        # max() would let a NaN pass or vanish depending on its place.
        known = groups.get(group, 0.0)
        groups[group] = math.nan if math.isnan(value) or math.isnan(known) else max(known, value)
        if value < 0:
            groups[group] = math.nan
    if not groups:
        return None
    try:
        total = math.fsum(groups.values())
    except (OverflowError, ValueError):
        return math.nan
    return total / len(groups) if metric.combine is Combine.MEAN else total


def _label_product(sample: Sample, labels: tuple[str, ...]) -> float:
    product = 1.0
    for label in labels:
        try:
            product *= float(sample.labels.get(label, ""))
        except ValueError:
            return 0.0
    return product
