"""What discovery says about one replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlsplit

from lb.errors import SettingsError

_NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica as a source describes it; frozen, compared by value.

    `id` is its stable identity: a replica that keeps `host:port` but changes `id` (a pod IP used again) is another
    replica, and nothing learned of the old one is carried over. Sources without a better identity use the URL.
    """

    id: str
    host: str
    port: int
    tls: bool = False
    tls_name: str | None = None
    """Name that its certificate must carry, where `host` is an address that a name was resolved to."""
    guarded: bool = False
    """It was named by somebody who could have a name server say anything: before each connection its addresses are
    checked by `lb.targets`."""
    base_path: str = ""
    """Prefix put before every request path, without a trailing slash."""
    models: tuple[str, ...] = ()
    """Models it serves; empty: ask the runtime, and until it has answered serve any model."""
    runtime: str = "auto"
    """A name from the runtime registry, or `auto` to detect it at join."""
    zone: str | None = None
    weight: float = 1.0
    """Relative speed that an operator declares (2.0: twice as fast); the fitted speed model replaces it with time."""
    max_in_flight: int | None = None
    """Hard cap on requests in flight; None: learned from what the runtime says and does."""
    metrics_url: str | None = None
    """Where its metrics are, if not on the serving port (Triton: another port)."""
    gpu_uuids: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS, hash=False)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.base_path}"

    @property
    def authority(self) -> str:
        """The Host header for requests to it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def parse_url(url: str) -> tuple[str, int, bool, str]:
    """Split a backend URL into (host, port, tls, base_path).

    Raises SettingsError for anything but http(s)://host[:port][/prefix]: no user info, query or fragment.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"{url!r} is not a URL ({error}); write http://host:port") from None
    if parts.scheme not in ("http", "https"):
        raise SettingsError(f"{url!r} does not start with http:// or https://; write http://host:port")
    if not parts.hostname:
        raise SettingsError(f"{url!r} names no host; write http://host:port")
    if parts.username is not None or parts.password is not None:
        raise SettingsError("a backend URL must not carry a user or password; use `upstream_authorization`")
    if parts.query or parts.fragment:
        raise SettingsError(f"{url!r} has a query or fragment; write http://host:port or http://host:port/prefix")
    tls = parts.scheme == "https"
    return parts.hostname, port if port is not None else (443 if tls else 80), tls, parts.path.rstrip("/")


def endpoint_from_url(url: str, **known: object) -> Endpoint:
    """An endpoint whose identity is its URL. `known` are further fields of Endpoint."""
    host, port, tls, base_path = parse_url(url)
    bare = Endpoint(id="", host=host, port=port, tls=tls, base_path=base_path)
    fields: dict[str, object] = {"id": bare.url, **known}
    return Endpoint(host=host, port=port, tls=tls, base_path=base_path, **fields)  # type: ignore[arg-type]
