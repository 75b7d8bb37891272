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


class KubernetesSource(Section):
    """Replicas from the Kubernetes API, watched: a change arrives within a tenth of a second."""

    service: Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")] | None = None
    """Service whose EndpointSlices say which pods are ready, where they are, and in which zone."""
    pods: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Label selector such as `app=llm`. Without `service`, the ready pods are the replicas; with it, the Service says
    who they are, and the pods' `tidegate.dev/` annotations what they serve."""
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] | None = None
    """Where they are; left out, that of our own pod, or `default`."""
    port: Annotated[int, Field(ge=1, le=65535)] | Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")] | None = None
    """Number or name of the replicas' port; left out, their only one, or that called `http`."""
    tls: bool = False
    """Whether the replicas speak HTTPS."""
    tls_name: str | None = None
    """Name that their certificates carry; pods are reached by address, for which certificates are rarely made."""
    models: tuple[str, ...] = ()
    """Models that all of them serve, where no annotation names others; empty: ask them."""
    runtime: str = "auto"
    """What they run, where no annotation says so; auto: find out."""
    kubeconfig: str | None = None
    """File that names the cluster, relative to the policy; left out, the cluster that we run in."""
    context: str | None = None
    """Context of the kubeconfig; left out, its current one."""
    watch_idle_s: Annotated[Seconds, Field(gt=0, le=240)] = 90.0
    """Silence after which a watch is opened anew. The API server says something every minute, so more than that; below
    four minutes, after which it ends a watch anyway."""
    max_replicas: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Most replicas taken, so that a wrong selector cannot flood the balancer."""

    @model_validator(mode="after")
    def _something(self) -> KubernetesSource:
        if self.service is None and self.pods is None:
            raise ValueError("needs `service` (a Service's name), `pods` (a label selector), or both")
        if self.context is not None and self.kubeconfig is None:
            raise ValueError("`context` has a meaning only with `kubeconfig`")
        if self.tls_name is not None and not self.tls:
            raise ValueError("`tls_name` has a meaning only with `tls: true`")
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
