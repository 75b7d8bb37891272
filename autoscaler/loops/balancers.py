"""Asks balancers elsewhere for their demand, and for what runs where.

One that does not answer makes the demand unknown, and never small; and nothing is ended that it may send requests to.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import msgspec

from autoscaler.loops.elsewhere import Elsewhere, read_replicas
from autoscaler.loops.merging import HERE, Merged, Merging
from autoscaler.policy.balancers import BalancersSettings
from lb.clock import Clock
from lb.endpoint import Endpoint, parse_url
from lb.feeds.http import FetchError, ProbeClient
from lb.views import ModelDemand, ReplicaView

log = logging.getLogger(__name__)

_BODY_BYTES = 8 << 20
"""A thousand models take half a megabyte, a thousand replicas one and a half."""


@dataclass(frozen=True, slots=True)
class Named:
    """Balancers behind one URL, and what they want to be asked with."""

    settings: BalancersSettings
    authorization: str | None = field(default=None, repr=False)


class _Demand(msgspec.Struct):
    """The answer of `/v1/demand`. Numbers that are not finite are null in it."""

    models: dict[str, dict[str, Any]]


class Balancers:
    """All of a policy. `look` once a tick, then `merged`."""

    def __init__(self, named: Sequence[Named], clock: Clock, *, stale_s: float) -> None:
        """`stale_s`: two ticks, so that one lost answer is forgiven."""
        self._named = named
        self._clock = clock
        self._client = ProbeClient()
        self._opened = False
        self._merging = Merging(stale_s)
        self._elsewhere = Elsewhere(stale_s)
        self._known: dict[str, tuple[str, ...]] = {}
        """By URL: the balancers that its name stood for when it could be looked up last."""
        self._unknown: dict[str, str] = {}
        """By URL: why its name could not be looked up."""
        self._silent: dict[str, str] = {}
        """By balancer: why it could not be asked."""

    def errors(self) -> dict[str, str]:
        """Of whom the demand is not known as of the last look, and why."""
        return {**self._unknown, **self._silent}

    async def look(self) -> None:
        """Ask all of them, side by side."""
        if not self._opened:
            await self._client.open()
            self._opened = True
        await asyncio.gather(*(self._resolve(one) for one in self._named))
        targets = [(named, place) for named in self._named for place in self._known.get(named.settings.url, ())]
        errors = dict(await asyncio.gather(*(self._ask(named, place) for named, place in targets)))
        for place, error in errors.items():
            if error and error != self._silent.get(place):
                log.warning("a balancer does not tell its demand", extra={"balancer": place, "reason": error})
        self._silent = {place: error for place, error in errors.items() if error}
        self._merging.keep(place for _, place in targets)
        self._elsewhere.keep(place for _, place in targets)

    async def _resolve(self, named: Named) -> None:
        """Every address of the name is a balancer. A name that cannot be looked up means what it meant before."""
        settings = named.settings
        host, port, tls, base_path = parse_url(settings.url)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(settings.timeout_s):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            self._known.setdefault(settings.url, ())
            self._unknown[settings.url] = f"{host} cannot be looked up: {error or 'no answer in time'}"
            return
        self._unknown.pop(settings.url, None)
        addresses = sorted({str(sockaddr[0]) for *_, sockaddr in found})
        places = [Endpoint(id="", host=one, port=port, tls=tls, base_path=base_path).url for one in addresses]
        self._known[settings.url] = tuple(places)

    async def _ask(self, named: Named, place: str) -> tuple[str, str]:
        """(balancer, why it could not be asked or nothing)"""
        try:
            demand, listed = await asyncio.gather(
                self._fetch(named, place, "/v1/demand"), self._fetch(named, place, "/v1/replicas")
            )
            models, replicas = read_demand(demand), read_replicas(listed)
        except FetchError as error:
            return place, str(error)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            return place, f"what it answered is not understood: {error}"
        now = self._clock.monotonic()
        self._merging.take(place, models, now)
        self._elsewhere.take(place, replicas, now)
        return place, ""

    async def _fetch(self, named: Named, place: str, path: str) -> bytes:
        settings = named.settings
        host, _, tls, _ = parse_url(settings.url)
        answer = await self._client.fetch(
            place + path, timeout_s=settings.timeout_s, authorization=named.authorization, limit_bytes=_BODY_BYTES,
            tls_name=host if tls else None,
        )  # fmt: skip
        if answer.status != 200 or answer.truncated:
            raise FetchError(f"it answered {answer.status} to {path}")
        return answer.body

    def merged(self, own: Mapping[str, ModelDemand], now: float) -> Merged:
        """The demand of this process and of all others. A name that never could be looked up leaves it unknown."""
        self._merging.take(HERE, own, now)
        found = self._merging.merged([place for places in self._known.values() for place in places], now)
        nameless = any(not places for places in self._known.values()) or len(self._known) < len(self._named)
        return Merged(found.models, found.complete and not nameless)

    def seen(self, view: ReplicaView, now: float) -> ReplicaView:
        """A replica of ours with what the others do on it."""
        return self._elsewhere.merged(view, now)

    def keeps(self, replica: str, now: float) -> str:
        """Why a replica must not be ended, as one of the others still sends it requests or may; or nothing."""
        for one in self._named:
            if not self._known.get(one.settings.url):
                return f"no balancer is known at {one.settings.url}, so nobody says whether they still send it requests"
        return self._elsewhere.keeps(replica, [place for places in self._known.values() for place in places], now)

    async def close(self) -> None:
        """End the connections."""
        await self._client.close()


def read_demand(body: bytes) -> dict[str, ModelDemand]:
    """The models in an answer of `/v1/demand`. Raises msgspec.MsgspecError or TypeError for anything else."""
    found = msgspec.json.decode(body, type=_Demand)
    known = set(ModelDemand.__dataclass_fields__)
    models = {}
    for model, fields in found.models.items():
        # A newer balancer may say more than is understood here.
        given = {name: value for name, value in fields.items() if name in known}
        if given.get("backlog_s", 0.0) is None:
            given["backlog_s"] = inf
        models[model] = msgspec.convert(given, ModelDemand)
    return models
