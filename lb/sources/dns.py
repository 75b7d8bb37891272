"""Replicas from DNS: A, AAAA and SRV records. The only door to dnspython.

A failed look-up (no such name, server failure, timeout) leaves the last good set for ever: DNS is down more often than
all replicas are gone. An answer that holds no record is believed after `keep_s`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rdatatype
import dns.resolver

from lb.address import parse_address
from lb.clock import Clock
from lb.endpoint import Endpoint
from lb.errors import SettingsError
from lb.settings import DnsSource
from lb.source import Push, SourceState, unique

log = logging.getLogger(__name__)

LOOKUP_S = 5.0
"""Most time for one look-up with all its tries, resolv.conf's own default for one try."""
LONGEST_WAIT_S = 300.0
"""A TTL of days must not hide new replicas for days; the default TTL of most zones is 300 s or less."""
JITTER_RATIO = 0.1
"""Spread of the waits, so that many instances do not ask at once."""


class DnsLookupError(Exception):
    """Nothing was learned."""


@dataclass(frozen=True, slots=True)
class Record:
    """One address that a name stands for."""

    ip: str
    port: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one look-up found; no records is an answer too."""

    records: tuple[Record, ...]
    ttl_s: float


class LastGood:
    """Which set is in force, given what look-ups brought. Pure: time is handed in."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._records: tuple[Record, ...] | None = None
        self._empty_since: float | None = None

    def fold(self, answer: Answer | None, now: float) -> tuple[Record, ...] | None:
        """The set to push, or None to leave things as they are. `answer` None: the look-up failed."""
        if answer is None:
            return None
        if not answer.records:
            if self._empty_since is None:
                self._empty_since = now
            if self._records and now - self._empty_since < self._keep_s:
                return None
        else:
            self._empty_since = None
        if answer.records == self._records:
            return None
        self._records = answer.records
        return answer.records


class DnsRecords:
    """One name, looked up again when its TTL has passed."""

    def __init__(self, settings: DnsSource, clock: Clock, rng: random.Random | None = None) -> None:
        port = "" if settings.port is None else f":{settings.port}"
        self.name = f"dns:{settings.type}:{settings.name}{port}"
        self.state = SourceState()
        self.settings = settings
        self._clock = clock
        self._rng = rng or random.Random()
        self._last_good = LastGood(settings.keep_s)
        self._resolver = _resolver(settings.nameservers)

    async def run(self, push: Push) -> None:
        while True:
            ttl_s = await self.look(push)
            wait_s = max(self.settings.interval_s, min(ttl_s, LONGEST_WAIT_S))
            await asyncio.sleep(wait_s * (1 + self._rng.random() * JITTER_RATIO))

    async def look(self, push: Push) -> float:
        """Look up once; push if the set changed. Returns the answer's TTL in seconds, 0 after a failure."""
        answer: Answer | None = None
        try:
            async with asyncio.timeout(2 * LOOKUP_S):
                answer = await self._lookup()
        except (DnsLookupError, TimeoutError) as error:
            self._failed(str(error) or "timed out")
        now = self._clock.monotonic()
        records = self._last_good.fold(answer, now)
        if records is not None:
            endpoints = unique((self._endpoint(record) for record in records), self.settings.max_records)
            push(endpoints)
            self.state.endpoints = len(endpoints)
            log.info("replicas from DNS", extra={"source": self.name, "replicas": len(endpoints)})
        if answer is None:
            return 0.0
        self.state.refreshed_at = now
        self.state.error = None if answer.records else "the answer holds no records"
        return answer.ttl_s if answer.records else 0.0

    def _failed(self, message: str) -> None:
        if message != self.state.error:
            log.warning(
                "DNS look-up failed, the last good set stays",
                extra={"source": self.name, "replicas": self.state.endpoints, "error": message},
            )
        self.state.error = message

    async def _lookup(self) -> Answer:
        settings = self.settings
        if settings.type == "SRV":
            return await self._lookup_srv()
        assert settings.port is not None  # the settings refuse an A source without one
        ips, ttl_s = await self._addresses(settings.name, settings.type)
        return Answer(_ordered(Record(ip, settings.port) for ip in ips), ttl_s)

    async def _lookup_srv(self) -> Answer:
        """Targets of the most preferred priority (RFC 2782), each with all its addresses."""
        answer = await self._resolve(self.settings.name, "SRV")
        if answer is None or answer.rrset is None:
            return Answer((), 0.0)
        services = list(answer.rrset)[: self.settings.max_records]
        first = min(service.priority for service in services)
        services = [s for s in services if s.priority == first and s.target.to_text() != "."]
        # Equal weights mean equal speed whatever their number is: Kubernetes divides 100 by the count of pods.
        mean = sum(service.weight for service in services) / len(services) if services else 0.0
        targets = sorted({service.target.to_text() for service in services})
        found = dict(zip(targets, await asyncio.gather(*map(self._target, targets)), strict=True))
        ttl_s = min([float(answer.rrset.ttl), *(ttl for _, ttl in found.values())])
        records = [
            Record(ip, service.port, round(max(service.weight / mean, 0.01), 4) if mean else 1.0)
            for service in services
            for ip in found[service.target.to_text()][0]
        ]
        return Answer(_ordered(records), ttl_s)

    async def _target(self, target: str) -> tuple[list[str], float]:
        """All addresses of an SRV target; a target that has lost its address must not take the others with it."""
        both = await asyncio.gather(
            self._addresses(target, "A"), self._addresses(target, "AAAA"), return_exceptions=True
        )
        good = [result for result in both if not isinstance(result, BaseException)]
        if not good:
            raise DnsLookupError(str(both[0]))
        ips = [ip for addresses, _ in good for ip in addresses]
        return ips, min((ttl for addresses, ttl in good if addresses), default=0.0)

    async def _addresses(self, name: str, kind: str) -> tuple[list[str], float]:
        answer = await self._resolve(name, kind)
        if answer is None or answer.rrset is None:
            return [], 0.0
        return [record.address for record in answer.rrset], float(answer.rrset.ttl)

    async def _resolve(self, name: str, kind: str) -> dns.resolver.Answer | None:
        """None: the name exists and has no such record. Raises DnsLookupError."""
        try:
            return await self._resolver.resolve(name, kind, search=True, lifetime=LOOKUP_S)
        except dns.resolver.NoAnswer:
            return None
        except (dns.exception.DNSException, OSError) as error:
            raise DnsLookupError(f"{name} {kind}: {str(error) or type(error).__name__}"[:300]) from None

    def _endpoint(self, record: Record) -> Endpoint:
        settings = self.settings
        shown = f"[{record.ip}]" if ":" in record.ip else record.ip
        return Endpoint(
            id=f"{settings.name}/{shown}:{record.port}",
            host=record.ip,
            port=record.port,
            tls=settings.tls,
            tls_name=settings.name if settings.tls else None,
            models=settings.models,
            runtime=settings.runtime,
            weight=record.weight,
        )


def _ordered(records: Iterable[Record]) -> tuple[Record, ...]:
    """Servers rotate their answers; an order of our own makes equal sets equal, and what a cap keeps stable."""
    return tuple(sorted(set(records), key=lambda record: (ipaddress.ip_address(record.ip).packed, record.port)))


def _resolver(nameservers: tuple[str, ...]) -> dns.asyncresolver.Resolver:
    try:
        resolver = dns.asyncresolver.Resolver(configure=not nameservers)
    except dns.resolver.NoResolverConfiguration:
        raise SettingsError("this machine names no DNS server (/etc/resolv.conf); set `nameservers`") from None
    if nameservers:
        resolver.nameservers = [_nameserver(text) for text in nameservers]
    return resolver


def _nameserver(text: str) -> dns.nameserver.Do53Nameserver:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        host, port = parse_address(text)
        return dns.nameserver.Do53Nameserver(host, port)
    return dns.nameserver.Do53Nameserver(text, 53)
