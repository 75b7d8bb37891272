"""What a runtime says of itself, in one vocabulary for all engines, and the table that describes an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class RuntimeLoad:
    """One reading of a replica's load. None: this runtime does not say, which is not zero."""

    running: float | None = None
    """Requests in the running batch, summed over data-parallel ranks."""
    waiting: float | None = None
    """Requests queued inside the runtime."""
    waiting_tokens: float | None = None
    """Uncached prompt tokens queued, where the runtime counts them (SGLang)."""
    kv_usage_ratio: float | None = None
    kv_capacity_tokens: int | None = None
    max_running: int | None = None
    """Slots: how many requests it runs at once."""
    prompt_tokens_total: float | None = None
    """Counters go on where they were when the runtime restarts, so that a difference of two is never negative."""
    output_tokens_total: float | None = None
    prefix_hit_ratio: float | None = None
    loaded_models: tuple[str, ...] | None = None
    adapters: tuple[str, ...] | None = None
    inferred: frozenset[str] = frozenset()
    """Names of fields above that were inferred and not read."""


class ProbeStatus(StrEnum):
    """What a health probe found."""

    READY = "ready"
    LOADING = "loading"
    """Alive, says that it is not ready: neither a failure nor a target."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One answer, or none, to a health probe."""

    status: ProbeStatus
    reason: str = ""
    """For people: `connection refused`, `503 Loading model`, `timed out after 2 s`."""
    models: tuple[str, ...] | None = None
    """Models it serves, when this probe asked."""
    runtime: str | None = None
    """Detected runtime, when this probe asked."""
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as far as it was read: what every table below is applied to."""

    status: int
    body: bytes
    server: str = ""
    """The Server header."""
    truncated: bool = False
    """The body was longer than what was read."""


JsonPath = tuple[str | int, ...]
"""Keys and indices from the top of a JSON document."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something by which an engine is known. Every condition that is set must hold."""

    path: str
    at: JsonPath = ()
    """Where in the JSON body to look."""
    starts: str = ""
    """What the text there begins with; empty: it only has to be there."""
    contains: bytes = b""
    """What the raw body contains."""
    server: str = ""
    """What the Server header begins with."""
    statuses: frozenset[int] = frozenset({200})
    """Statuses that count; empty: any."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """How to ask whether it can serve now. A status that is in no set, or a connection that fails, is a failure."""

    path: str
    """`{model}` is replaced by each model's name in turn; the replica is ready for those that say so."""
    ready: frozenset[int] = frozenset({200})
    loading: frozenset[int] = frozenset()
    """Statuses that mean: alive, not ready."""
    loading_body: bytes = b""
    """What the body must contain (any case) for `loading` to hold; empty: nothing."""
    loading_once: bool = False
    """`loading` holds until it was ready for the first time; later the same answer is a failure."""
    alive: frozenset[int] = frozenset()
    """Statuses that only prove that somebody is there, and must do: this engine has no such path."""
    fallback: str = ""
    """Asked instead where `path` needs a model's name and none is known."""


@dataclass(frozen=True, slots=True)
class Listing:
    """How to ask which models it serves."""

    path: str
    items: JsonPath
    """Where the list is; () if the document is the list."""
    name: str = "id"
    method: str = "GET"
    aliases: str = ""
    """Key of a list of further names."""
    drop_suffix: str = ""
    """A suffix without which the name is good too (Ollama's `:latest`)."""
    parent: str = ""
    """Key that is set on adapters (LoRA) and on nothing else."""
    states: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)
    """Key and values that an entry must have to count."""


@dataclass(frozen=True, slots=True)
class Series:
    """A metric by name, and the labels that a sample must have."""

    name: str
    where: tuple[tuple[str, str], ...] = ()


class Combine(StrEnum):
    """How samples with different labels become one number."""

    SUM = "sum"
    MEAN = "mean"
    """For ratios: ranks of equal size."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One field of RuntimeLoad out of a Prometheus exposition."""

    field: str
    series: tuple[Series, ...]
    """Names that this number has or had, newest first: the first that is present counts."""
    every: bool = False
    """All of `series` are added up instead, those that are absent count nothing."""
    combine: Combine = Combine.SUM
    same: frozenset[str] = frozenset()
    """Labels over which the same number is repeated and must not be added (tensor-parallel ranks)."""
    times: Series | None = None
    """Multiply by this."""
    per: Series | None = None
    """Divide by this; both are counters and the quotient is that of their recent increments."""
    labels: tuple[str, ...] = ()
    """Multiply the numbers in these labels instead of taking the value (an info metric)."""
    required: bool = False
    """Without it the reading is reported as incomplete: the metric was renamed, or is not turned on."""


@dataclass(frozen=True, slots=True)
class LoadSource:
    """One way to read the load: Prometheus text (`metrics`) or JSON (`read`)."""

    path: str
    metrics: tuple[Metric, ...] = ()
    read: Callable[[object], Mapping[str, object] | None] | None = None
    """From the parsed document to fields of RuntimeLoad; None: this is not such a document."""
    port: int | None = None
    """The engine's default metrics port, if it is not the serving port."""
    inferred: frozenset[str] = frozenset()
    assumed: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Fields that no version tells and that are taken to be this much, marked as inferred."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Numbers that do not change while it runs, asked once at join."""

    path: str
    fields: Mapping[str, JsonPath] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Sign:
    """An answer to a request (not a probe) that means something other than its status says."""

    status: int
    contains: bytes


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """One engine. Every file of `lb.runtimes` is one of these; `lb.runtime_reader` applies it."""

    name: str
    title: str
    marks: tuple[Mark, ...]
    readiness: Readiness
    listing: Listing | None = None
    loads: tuple[LoadSource, ...] = ()
    """In order of preference; the first that answers with a number is used."""
    facts: tuple[Facts, ...] = ()
    unsaid: frozenset[str] = frozenset()
    """Fields of RuntimeLoad that no version tells: the balancer infers them from its own requests."""
    abandons_unary: bool = False
    """True: it runs a unary request to its end after the client has left, so the work keeps counting."""
    idle_close_s: float | None = None
    """It closes a connection that has been idle for this long; None: longer than a minute, or never."""
    closes_after_error: bool = False
    """It closes the connection after an error answer."""
    any_model: bool = False
    """It holds one model and answers to any name of it."""
    usage_in_stream: bool = True
    """Its streams can end with token counts."""
    never_poll: frozenset[str] = frozenset()
    """Paths that a GET changes or that cost GPU time."""
    client_faults: tuple[Sign, ...] = ()
    """5xx answers to a client's mistake: no mark against the replica, no retry."""
    dying: tuple[Sign, ...] = ()
    """Answers of a runtime that shuts down while its health path still says 200: retry elsewhere, take it out."""
    source: str = ""
    """Where all this was read or measured."""


@dataclass(frozen=True, slots=True)
class Conformance:
    """What one replica turned out to tell of itself, beside what its engine can."""

    runtime: str
    load_path: str | None = None
    """Where its load is read; None: it tells nothing, its load is inferred from our own requests."""
    present: frozenset[str] = frozenset()
    """Fields of RuntimeLoad that it tells."""
    inferred: frozenset[str] = frozenset()
    """Those of `present` that were inferred and not read."""
    missing: tuple[str, ...] = ()
    """Metrics that this engine usually has and this replica has not: renamed, or not turned on."""
    note: str = ""
    """Why nothing is told, if nothing is."""
