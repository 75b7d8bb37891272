"""Who asks: API keys, and the client's address behind trusted proxies. No socket, no clock: values in, values out.

Keys are compared by SHA-256. A caller cannot choose the digest of his guess, so finding it in a dict tells him nothing
of the right one; the last comparison is constant in time all the same, and a miss takes the same steps as a hit.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from lb.errors import ProxyError, Reason
from lb.settings import KeySettings

MAX_KEY_BYTES = 4096
"""Longest key that is looked at. Real keys have 20 to 200 bytes, signed tokens up to 3 kB."""
FREE_FAILURES = 10
"""Wrong keys that one source may send before it has to wait: a rollout with a stale secret is not an attack."""
BACKOFF_S = 1.0
"""First wait; it doubles with each further wrong key."""
BACKOFF_MAX_S = 60.0
FORGET_S = 600.0
"""A source without a wrong key for this long starts afresh."""
MAX_SOURCES = 4096
"""Sources remembered, about 200 bytes each; the least recent goes first."""
MAX_HOPS = 32
"""Entries of X-Forwarded-For that are looked at, from the right."""

_NO_DIGEST = b"\0" * 32

Network = IPv4Network | IPv6Network


@dataclass(slots=True)
class _Source:
    failures: int
    last_at: float
    wait_until: float


class Authenticator:
    """Turns request headers into the key that owns the request. One writer; never awaits.

    A source that guesses is answered 429 for a while. Keys that worked from that source before keep working meanwhile,
    so that one bad client behind a shared address does not lock the others out.
    """

    def __init__(self, keys: tuple[KeySettings, ...] = ()) -> None:
        self._by_digest = {bytes.fromhex(key.sha256): key for key in keys}
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    @property
    def required(self) -> bool:
        """False: no keys are configured and every request belongs to the tenant `default`."""
        return bool(self._by_digest)

    @property
    def watched_sources(self) -> int:
        """Sources that sent wrong keys lately; never more than `MAX_SOURCES`."""
        return len(self._sources)

    def authenticate(
        self,
        authorization: bytes | None,
        x_api_key: bytes | None = None,
        api_key: bytes | None = None,
        *,
        source: str,
        now: float,
    ) -> KeySettings | None:
        """The key of a request by the values of `Authorization: Bearer`, `x-api-key` and `api-key`, in that order.

        None: no keys are configured. `source` is the client's address. Raises ProxyError: 401 for a missing or wrong
        key, 429 with `retry_after_s` for a source that has to wait.
        """
        if not self._by_digest:
            return None
        presented = [value for value in (_bearer(authorization), x_api_key, api_key) if value]
        for value in presented:
            key = self._find(value)
            if key is not None:
                self._admit(source, key, now)
                return key
        if not presented:
            raise ProxyError(
                Reason.UNAUTHORIZED, 401, "no API key: send `Authorization: Bearer KEY`, `x-api-key` or `api-key`"
            )
        raise self._refuse(source, now)

    def _find(self, value: bytes) -> KeySettings | None:
        if len(value) > MAX_KEY_BYTES:
            return None
        digest = hashlib.sha256(value).digest()
        key = self._by_digest.get(digest)
        expected = bytes.fromhex(key.sha256) if key is not None else _NO_DIGEST
        return key if hmac.compare_digest(digest, expected) else None

    def _admit(self, source: str, key: KeySettings, now: float) -> None:
        seen = (source, key.name)
        if seen in self._seen:
            return
        record = self._sources.get(source)
        if record is not None and now < record.wait_until:
            raise _too_many(record.wait_until - now)
        self._seen[seen] = None
        if len(self._seen) > MAX_SOURCES:
            self._seen.popitem(last=False)

    def _refuse(self, source: str, now: float) -> ProxyError:
        record = self._sources.pop(source, None)
        if record is None or now - record.last_at > FORGET_S:
            record = _Source(0, now, 0.0)
        self._sources[source] = record
        if len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        if now < record.wait_until:
            return _too_many(record.wait_until - now)
        record.failures += 1
        record.last_at = now
        excess = record.failures - FREE_FAILURES
        if excess > 0:
            record.wait_until = now + min(BACKOFF_S * 2.0 ** min(excess - 1, 16), BACKOFF_MAX_S)
        return ProxyError(Reason.UNAUTHORIZED, 401, "the API key is not known")


def _bearer(value: bytes | None) -> bytes | None:
    """The token of a `Bearer` header; None for another scheme or none."""
    if value is None or value[:7].lower() != b"bearer ":
        return None
    return value[7:].strip()


def _too_many(wait_s: float) -> ProxyError:
    return ProxyError(
        Reason.RATE_LIMITED, 429, "too many wrong API keys from this address; wait", retry_after_s=max(wait_s, 1.0)
    )


def key_digest(key: str) -> str:
    """Hex SHA-256 of an API key, the form that the policy holds."""
    return hashlib.sha256(key.encode()).hexdigest()


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The client's IP address: the right-most entry of X-Forwarded-For that no trusted proxy added.

    `peer` is the address of the TCP connection. What an untrusted peer says is not believed; an entry that is no
    address ends the walk at the hop that reported it, and when every hop is trusted the left-most is the client.
    """
    if not trusted or not forwarded_for or not _is_trusted(peer, trusted):
        return peer
    client = peer
    for entry in reversed(forwarded_for.split(",")[-MAX_HOPS:]):
        address = _address(entry)
        if address is None:
            return client
        client = str(address)
        if not _within(address, trusted):
            return client
    return client


def forwarded_for_value(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """X-Forwarded-For as it goes to the replica: extended behind a trusted proxy, otherwise replaced by the peer."""
    if trusted and forwarded_for and _is_trusted(peer, trusted):
        return f"{forwarded_for}, {peer}"
    return peer


def _is_trusted(peer: str, trusted: Sequence[Network]) -> bool:
    address = _address(peer)
    return address is not None and _within(address, trusted)


def _within(address: IPv4Address | IPv6Address, trusted: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in trusted)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An entry of X-Forwarded-For: an address, perhaps with a port (`1.2.3.4:80`, `[::1]:80`)."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
