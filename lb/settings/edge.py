"""Settings of what surrounds the request path: replicas and where they come from, keys, the admin API."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lb.settings.durations import Seconds
from lb.settings.proxy import Section


class BackendSettings(Section):
    """Replicas listed in the policy."""

    url: str
    """http://host:port, with a path prefix if it has one."""
    models: tuple[str, ...] = ()
    """Models it serves; empty: ask it."""
    runtime: str = "auto"
    """vllm, sglang, tgi, triton, llamacpp, ollama, trtllm, lmdeploy, generic; auto: find out."""
    zone: str | None = None
    """Where it runs (a rack, an availability zone); compared with `routing.zone`."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Relative speed, until it is measured."""
    max_in_flight: Annotated[int, Field(ge=1)] | None = None
    """Most requests at once; left out, it is learned from what the runtime says and does."""
    metrics_url: str | None = None
    """Where its metrics are, if not on the serving port."""
    gpu_uuids: tuple[str, ...] = ()
    """GPUs it runs on, as `nvidia-smi -L` names them; ties their readings to this replica."""


class FileSource(Section):
    """Replicas from a YAML or JSON file that others write; watched."""

    path: str
    """A list of entries with the fields of `backends`, read again when it changes."""
    interval_s: Annotated[Seconds, Field(gt=0)] = 1.0
    """Between two looks at the file; reading it costs next to nothing."""


class DnsSource(Section):
    """Replicas from DNS."""

    name: str
    """Name to resolve."""
    type: Literal["A", "AAAA", "SRV"] = "A"
    """Kind of records; of SRV records only those of the most preferred priority count."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port of the replicas; SRV brings its own."""
    tls: bool = False
    """Whether the replicas speak HTTPS."""
    models: tuple[str, ...] = ()
    """Models that all of them serve; empty: ask them."""
    runtime: str = "auto"
    """What all of them run; auto: find out."""
    interval_s: Annotated[Seconds, Field(gt=0)] = 5.0
    """Between look-ups, if the records' TTL is not longer."""
    keep_s: Annotated[Seconds, Field(ge=0)] = 300.0
    """How long an answer without records leaves the last good set in place; failures leave it for ever."""
    nameservers: tuple[str, ...] = ()
    """IP or IP:port; empty: those of the system."""
    max_records: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Most replicas taken from one name, so that a wrong zone cannot flood the balancer."""

    @model_validator(mode="after")
    def _port(self) -> DnsSource:
        if self.type != "SRV" and self.port is None:
            raise ValueError(f"port is missing: {self.type} records carry none")
        return self


class KeySettings(Section):
    """One API key."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    """Who it is; becomes the tenant and a metric label, never the key itself."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Hex SHA-256 of the key; `tidegate hash-key` makes it."""
    priority: int = 0
    """Priority of its requests: 0 normal, lower is more urgent."""
    may_prioritize: bool = False
    """Whether its clients may set their own priority."""
    models: tuple[str, ...] = ()
    """Models it may use; empty: all."""


class AdminSettings(Section):
    """Metrics, health, replicas, explain, reload: on an address of its own."""

    listen: str = "127.0.0.1:9400"
    """host:port; anything but loopback needs `token`."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts that may be added as replicas over the API although they look like a metadata service (169.254.0.0/16)."""
    token: str | None = None
    """Secret reference (`env:NAME` or `file:NAME`) that callers send as `Authorization: Bearer`. /metrics, /healthz and
    /readyz are open without it."""


class PeerSettings(Section):
    """Another node's Tidegate: its GPUs, and what it has in flight."""

    url: str
    """Its admin API, http://host:port. Replicas on that host are tied to that node's cards."""
    token: str | None = None
    """Secret reference (`env:NAME` or `file:NAME`) of its admin token; it needs one, as it listens beyond loopback."""
    hosts: tuple[str, ...] = ()
    """Further names or addresses of that node, where its replicas are listed under others than the one in `url`."""
    interval_s: Annotated[Seconds, Field(ge=0.1)] = 1.0
    """Between two readings. 1 s, as often as the node itself looks at its cards."""
    stale_s: Annotated[Seconds, Field(gt=0)] = 5.0
    """Readings older than this say nothing any more, except of cards that were bad. Five missed ones."""
