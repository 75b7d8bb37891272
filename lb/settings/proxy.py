"""Settings of the request path: addresses, limits, deadlines, headers, paths."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, IPvAnyNetwork

from lb.settings.durations import Bytes, Seconds


def _written(name: str) -> str:
    """The field's name in YAML: the value there carries its unit (`idle: 120s`), so the name need not."""
    return name.removesuffix("_s").removesuffix("_bytes")


class Section(BaseModel):
    """Every part of the policy: frozen, unknown keys refused, each field's docstring goes into the JSON schema.

    YAML uses the names without unit (`head: 10s`, `body: 16MiB`), code those with it (`head_s`, `body_bytes`).
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        alias_generator=_written,
        validate_by_name=True,
        validate_by_alias=True,
    )


class LimitSettings(Section):
    """What one request or connection may take."""

    request_line_bytes: Annotated[Bytes, Field(ge=512, le=65_536)] = 8192
    """Longest request line; longer gets 414. 8 KiB is what nginx, Apache and aiohttp allow."""
    header_bytes: Annotated[Bytes, Field(ge=512, le=65_536)] = 8192
    """Longest single header field; longer gets 431."""
    head_bytes: Annotated[Bytes, Field(ge=1024, le=262_144)] = 32_768
    """Request line and headers together; more gets 431."""
    headers: Annotated[int, Field(ge=10, le=1000)] = 100
    """Most header fields of a request; more gets 431."""
    body_bytes: Annotated[Bytes, Field(ge=1024, le=1 << 40)] = 16 << 20
    """Largest request body; larger gets 413. Raise it (to `512MiB`, say) for images and audio."""
    buffer_bytes: Annotated[Bytes, Field(ge=4096, le=64 << 20)] = 2 << 20
    """Bodies up to this size are read whole before a replica is chosen, so that they can be read for cost and sent
    again on a retry. Larger ones are streamed through with backpressure and never retried once sending began."""
    stream_buffer_bytes: Annotated[Bytes, Field(ge=4096, le=16 << 20)] = 65_536
    """Unsent reply bytes held per client before the replica is paused. A client that does not read holds this much
    and one read more."""
    response_head_bytes: Annotated[Bytes, Field(ge=1024, le=1 << 20)] = 65_536
    """Largest head of a replica's reply; larger gets 502."""
    response_headers: Annotated[int, Field(ge=10, le=2000)] = 256
    """Most header fields of a replica's reply; more gets 502."""
    connections: Annotated[int, Field(ge=1)] = 20_000
    """Client connections at once; beyond, new ones are answered 503 and closed."""


def _not_counted(value: object) -> object:
    """`5` or `false` would be taken for the network 0.0.0.5/32 or 0.0.0.0/32."""
    if isinstance(value, int):
        raise ValueError("must be a network such as 10.0.0.0/8 or fd00::/8")
    return value


class TimeoutSettings(Section):
    """Deadlines of the request path. None limits a stream's total time."""

    head_s: Annotated[Seconds, Field(gt=0)] = 10.0
    """From a connection's (or request's) first byte to the end of its headers, absolute, so that a trickle gains
    nothing. HAProxy advises 5 to 10 s."""
    body_s: Annotated[Seconds, Field(gt=0)] = 30.0
    """Each window of this length must bring `body_rate_bytes_s` on average."""
    body_rate_bytes_s: Annotated[int, Field(ge=1)] = 1024
    """Slowest body accepted, in bytes per second over a window of `body_s`."""
    keep_alive_s: Annotated[Seconds, Field(gt=0)] = 75.0
    """Idle time after which a client's connection is closed (nginx's default)."""
    connect_s: Annotated[Seconds, Field(gt=0)] = 1.0
    """To a replica. One lost SYN costs 1 s, so a healthy replica is reached well within it."""
    first_byte_s: Annotated[Seconds, Field(gt=0)] = 300.0
    """From the request's last byte to the reply's first. Long prompts in a queue take minutes."""
    idle_s: Annotated[Seconds, Field(gt=0)] = 120.0
    """Between two reads of a reply that has begun; comments and pings count as life here, not as progress."""
    write_stall_s: Annotated[Seconds, Field(gt=0)] = 60.0
    """A client that takes no byte for this long is cut."""
    upstream_idle_s: Annotated[Seconds, Field(gt=0)] = 4.0
    """Pooled connections to replicas are dropped after this idle time; llama.cpp and uvicorn close theirs after 5 s."""
    shutdown_s: Annotated[Seconds, Field(ge=0)] = 120.0
    """Grace of SIGTERM: running requests may end, then they are cut with an error (linkerd's 120 s)."""


class ForwardingSettings(Section):
    """What a replica is told of the client, and what is believed of what the client says."""

    trusted_proxies: tuple[Annotated[IPvAnyNetwork, BeforeValidator(_not_counted)], ...] = ()
    """Networks whose X-Forwarded-* headers are kept and extended; from anyone else they are replaced."""
    upstream_authorization: Literal["strip", "forward", "replace"] = "strip"
    """What becomes of the client's Authorization and x-api-key: dropped, passed on, or replaced by `upstream_key`.
    Dropped by default, so that a client's secret never reaches a replica by accident. Without `keys` (nobody is
    authenticated here) use `forward` if the replicas check keys themselves."""
    upstream_key: str | None = None
    """Secret reference for `replace`: `env:NAME` or `file:NAME` (beside the policy file)."""
    half_close: Literal["gone", "wait"] = "gone"
    """What a client that sends FIN after its request means: it has left (true of every LLM SDK), or it waits."""


class PathSettings(Section):
    """Which paths are reachable through Tidegate. Everything else is 404, so no engine's admin path is."""

    allow: tuple[str, ...] = ()
    """Further paths, exact (`/v1/predict`) or with a trailing `/*`, passed on with a default cost."""
    websocket: tuple[str, ...] = ()
    """Paths on which a WebSocket upgrade is tunnelled (`/v1/realtime`)."""
    custom: tuple[CustomSurface, ...] = ()
    """Paths with JSON bodies of your own."""


class CustomSurface(Section):
    """A JSON API of your own: where its prompt and limit are."""

    path: Annotated[str, Field(pattern=r"^/[^\s?#]*$")]
    """Exact path, such as `/v1/predict`."""
    prompt: Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$")] = "prompt"
    """Dotted JSON path of the prompt text."""
    max_tokens: Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$")] = "max_tokens"
    """Dotted JSON path of the output limit."""
    model: Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$")] = "model"
    """Dotted JSON path of the model name."""
    stream: Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$")] = "stream"
    """Dotted JSON path of the flag that asks for a stream."""


class TlsSettings(Section):
    """Serve HTTPS."""

    certificate: str
    """PEM file with the chain."""
    key: str
    """PEM file with the private key."""
    client_ca: str | None = None
    """PEM file of authorities; when set, clients must present a certificate from one of them."""


class LogSettings(Section):
    """Logs go to standard error."""

    format: Literal["text", "json"] = "text"
    """`text` is key=value, for people and grep."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important lines written: `info` is changes of state, `debug` adds what led to them."""
    access: Literal["off", "errors", "all"] = "errors"
    """Access log: nothing, only requests that failed, were retried or waited, or every request."""


PathSettings.model_rebuild()
