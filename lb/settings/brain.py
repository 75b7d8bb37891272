"""Settings of the decisions: cost, routing, admission, health, retries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from lb.settings.durations import Seconds
from lb.settings.proxy import Section

Ratio = Annotated[float, Field(ge=0, le=1)]


class RoutingSettings(Section):
    """How a replica is chosen."""

    strategy: Literal["tidegate", "round-robin", "random", "least-requests", "p2c"] = "tidegate"
    """`tidegate` predicts when each replica would finish the request; the others exist for comparison."""
    weights: Mapping[str, Annotated[float, Field(ge=0, le=100)]] = Field(default_factory=dict)
    """Weight of a scorer by its name, 0 turns it off; those not named keep their default (see lb/README.md)."""
    prefix_affinity: bool = True
    """Prefer the replica that has seen the beginning of the prompt, as far as it saves time."""
    prefix_index_blocks: Annotated[int, Field(ge=1000, le=10_000_000)] = 200_000
    """Most prompt blocks remembered over all replicas, about 150 bytes each."""
    session_header: str | None = "x-session-id"
    """Header whose value ties requests to one replica while it is not saturated; None: off."""
    session_ttl_s: Annotated[Seconds, Field(gt=0)] = 1800.0
    """A session without requests for this long is forgotten."""
    zone: str | None = None
    """Our own zone; replicas of the same zone are preferred a little."""
    shortlist: Annotated[int, Field(ge=4, le=1024)] = 64
    """Up to this many replicas are scored one by one; of more, those with the least work ahead and those with an
    affinity. Best-of-two misses good replicas among slow ones, the full scan costs microseconds a replica."""


class CostSettings(Section):
    """What a request is expected to cost before anything was learned."""

    bytes_per_token: Annotated[float, Field(gt=0.5, le=16)] = 4.0
    """Prior for text in ASCII; corrected from the usage that runtimes return."""
    wide_bytes_per_token: Annotated[float, Field(gt=0.5, le=16)] = 2.5
    """Prior for bytes outside ASCII (a CJK character is 3 bytes and about one token)."""
    output_tokens: Annotated[int, Field(ge=1)] = 256
    """Prior for the length of an answer."""
    prefill_s_per_token: Annotated[float, Field(gt=0)] = 0.00012
    """Prior of a replica's prefill time a token."""
    step_s: Annotated[float, Field(gt=0)] = 0.012
    """Prior of a decode step's fixed time."""
    step_s_per_running: Annotated[float, Field(ge=0)] = 0.00015
    """Prior of what each running request adds to a decode step."""


class AdmissionSettings(Section):
    """What happens when no replica has room."""

    queue: bool = True
    """Hold requests here while every replica is saturated, and send each to the first that has room."""
    queue_requests: Annotated[int, Field(ge=0)] = 4096
    """Most requests waiting; beyond, 429."""
    queue_body_bytes: Annotated[int, Field(ge=0)] = 1 << 30
    """Most body bytes of waiting requests; beyond, 429."""
    queue_wait_s: Annotated[Seconds, Field(gt=0)] = 60.0
    """Longest wait; then 503 with Retry-After."""
    cold_wait_s: Annotated[Seconds, Field(gt=0)] = 300.0
    """Longest wait while there is no replica at all (scaled to zero); then 503."""
    default_max_in_flight: Annotated[int, Field(ge=1)] = 256
    """Cap of requests in flight per replica while its own limit is unknown."""
    queue_depth: Annotated[int, Field(ge=0)] = 2
    """Requests that may wait inside a runtime beyond its slots, so that it never idles between two answers."""
    deadline_header: str | None = "x-request-timeout"
    """Header with the client's patience in seconds; a request that cannot end in time is refused at once."""
    priority_header: str | None = "x-priority"
    """Header with an integer, 0 normal, lower is more urgent; believed only from keys with `may_prioritize` when
    there are keys."""


class HealthSettings(Section):
    """When a replica is in and when it is out."""

    interval_s: Annotated[Seconds, Field(gt=0)] = 1.0
    """Between probes of one replica."""
    timeout_s: Annotated[Seconds, Field(gt=0)] = 2.0
    """Of a probe."""
    fall: Annotated[int, Field(ge=1)] = 3
    """Failed probes in a row that take a replica out."""
    rise: Annotated[int, Field(ge=1)] = 2
    """Good probes in a row that bring it back."""
    failures: Annotated[int, Field(ge=1)] = 5
    """Faults of real requests in a row that eject a replica (Envoy's 5)."""
    ejection_s: Annotated[Seconds, Field(gt=0)] = 10.0
    """First ejection; doubles with each that follows, up to `ejection_max_s`."""
    ejection_max_s: Annotated[Seconds, Field(gt=0)] = 300.0
    """Longest ejection (Envoy's 300 s): a replica that was repaired is back within minutes."""
    max_ejected_ratio: Ratio = 0.5
    """Passive ejection never takes more than this share of a pool."""
    panic_ratio: Ratio = 0.0
    """With fewer than this share of a pool healthy, health is ignored (Envoy's panic mode); 0: never."""
    progress_steps: Annotated[float, Field(ge=5)] = 100.0
    """A replica with running requests and no token for this many of its learned step times (and at least
    `progress_min_s`) is taken for hung."""
    progress_min_s: Annotated[Seconds, Field(gt=0)] = 10.0
    """Least silence that counts as hung; a long prompt's prefill stops the other streams for seconds."""
    scrape_interval_s: Annotated[Seconds, Field(gt=0)] = 0.5
    """Between readings of a replica's own load."""
    scrape_stale: Annotated[int, Field(ge=1)] = 3
    """Missed readings after which the last one is no longer believed."""
    warmup_s: Annotated[Seconds, Field(ge=0)] = 10.0
    """Ramp of a replica that joins or returns, until its own warm-up time is learned."""
    drain_s: Annotated[Seconds, Field(ge=0)] = 600.0
    """A drained replica's requests may run this long, then they are ended with an error. 0: no limit."""


class RetrySettings(Section):
    """Second tries, only before the client got a byte, always on another replica."""

    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Tries in all; replicas that refuse the connection do not use up the budget."""
    budget_ratio: Ratio = 0.2
    """Prompt tokens sent again, as a share of prompt tokens of the last minute (Envoy's and Finagle's 20 %)."""
    budget_min_tokens: Annotated[int, Field(ge=0)] = 32_768
    """Prompt tokens a minute that may always be sent again, so that a quiet service can retry at all."""
    on_server_error: bool = False
    """Retry a 500 as well. Off: some runtimes answer a client's mistake with 500."""
