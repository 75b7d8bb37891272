"""The balancer on an event loop: the one place that carries its effects out and wakes it when time has passed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from lb.balancer import Balancer
from lb.effects import Abort, Effects, Rejected, ReplicaChanged, Routed, Withdraw
from lb.endpoint import Endpoint
from lb.replica import GpuReading
from lb.runtime import ProbeResult, RuntimeLoad
from lb.runtimes import ABANDONS, ANY_MODEL
from lb.settings import LbSettings
from lb.signals import Objective

log = logging.getLogger(__name__)

POLL_S = 0.25
"""The balancer is looked after at least this often; a nearer deadline of its own comes sooner."""


class Waiter(Protocol):
    """The handler of a request, as the owner of its ticket."""

    def on_routed(self, effect: Routed) -> None:
        """Its wait is over."""

    def on_rejected(self, effect: Rejected) -> None:
        """Its wait was in vain; the ticket is finished."""

    def on_abort(self, effect: Abort) -> None:
        """It must end now."""

    def on_withdraw(self, effect: Withdraw) -> None:
        """Another replica may do better."""


class Gateway:
    """Owns the balancer. Everything that reaches it after construction comes through here, on the loop's thread."""

    def __init__(self, settings: LbSettings, loop: asyncio.AbstractEventLoop, rng: random.Random | None = None) -> None:
        self.loop = loop
        self.now = loop.time
        self.balancer = Balancer(
            settings, rng=rng or random.Random(), now=loop.time(), abandons=ABANDONS, any_model=ANY_MODEL
        )
        self._sources: dict[str, tuple[Endpoint, ...]] = {}
        self._endpoints: tuple[Endpoint, ...] = ()
        self._endpoint_listeners: list[Callable[[tuple[Endpoint, ...]], None]] = []
        self._listeners: list[Callable[[ReplicaChanged], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._closed = False
        self.arm()

    # feeds ---------------------------------------------------------------------------------------------------------

    def observe_load(self, replica_id: str, load: RuntimeLoad) -> None:
        self.apply(self.balancer.observe_load(replica_id, load, self.now()))

    def observe_load_failed(self, replica_id: str, reason: str) -> None:
        self.apply(self.balancer.observe_load_failed(replica_id, reason, self.now()))

    def observe_probe(self, replica_id: str, probe: ProbeResult) -> None:
        self.apply(self.balancer.observe_probe(replica_id, probe, self.now()))

    def observe_gpu(self, replica_id: str, reading: GpuReading | None) -> None:
        self.apply(self.balancer.observe_gpu(replica_id, reading, self.now()))

    # operators -----------------------------------------------------------------------------------------------------

    def drain(self, replica_id: str, deadline_s: float | None = None) -> None:
        """No new work for a replica; what runs on it may end within `deadline_s` (None: as the policy says)."""
        self.apply(self.balancer.drain(replica_id, self.now(), deadline_s))

    def undrain(self, replica_id: str) -> None:
        self.apply(self.balancer.undrain(replica_id, self.now()))

    def reconfigure(self, settings: LbSettings) -> None:
        self.apply(self.balancer.reconfigure(settings, self.now()))

    def expect(self, objectives: Mapping[str, Objective], otherwise: Objective | None) -> None:
        """Count misses from now on: what requests may expect, by model, and of models that are not named."""
        self.balancer.expect(objectives, otherwise, self.now())

    def shutdown(self) -> None:
        """Refuse new requests from now on."""
        self.apply(self.balancer.shutdown(self.now()))

    # membership ----------------------------------------------------------------------------------------------------

    def set_source(self, name: str, endpoints: Sequence[Endpoint]) -> None:
        """Replace what the source `name` knows. A replica known to several sources is taken from the first by name."""
        self._sources[name] = tuple(endpoints)
        self._merge()

    def drop_source(self, name: str) -> None:
        if self._sources.pop(name, None) is not None:
            self._merge()

    def _merge(self) -> None:
        merged: dict[tuple[str, int, str], Endpoint] = {}
        for source in sorted(self._sources):
            for endpoint in self._sources[source]:
                merged.setdefault((endpoint.host, endpoint.port, endpoint.base_path), endpoint)
        endpoints = tuple(merged.values())
        if endpoints == self._endpoints:
            return
        self._endpoints = endpoints
        self.apply(self.balancer.set_endpoints(endpoints, self.now()))
        for listener in self._endpoint_listeners:
            listener(endpoints)

    def endpoints(self) -> tuple[Endpoint, ...]:
        return self._endpoints

    def on_endpoints(self, callback: Callable[[tuple[Endpoint, ...]], None]) -> None:
        """Call `callback` with the merged set now and after each change."""
        self._endpoint_listeners.append(callback)
        callback(self._endpoints)

    def subscribe(self, callback: Callable[[ReplicaChanged], None]) -> None:
        """Call `callback` for each change of a replica's state."""
        self._listeners.append(callback)

    # effects and time ----------------------------------------------------------------------------------------------

    def apply(self, effects: Effects) -> None:
        """Carry out what the balancer decided. An owner that fails does not keep the others from theirs."""
        for effect in effects:
            try:
                if isinstance(effect, ReplicaChanged):
                    for listener in self._listeners:
                        listener(effect)
                    continue
                owner = effect.ticket.owner if effect.ticket is not None else None
                assert owner is not None, f"nobody waits for {effect}"
                waiter: Waiter = owner  # type: ignore[assignment]
                if isinstance(effect, Routed):
                    waiter.on_routed(effect)
                elif isinstance(effect, Rejected):
                    waiter.on_rejected(effect)
                elif isinstance(effect, Withdraw):
                    waiter.on_withdraw(effect)
                else:
                    waiter.on_abort(effect)
            except Exception:
                log.exception("an effect could not be carried out: %r", type(effect).__name__)

    def arm(self) -> None:
        """Wake at the balancer's next deadline; to be called when a decision may have brought a nearer one."""
        if self._closed:
            return
        now = self.now()
        deadline = self.balancer.next_deadline()
        at = now + POLL_S if deadline is None else max(now, min(deadline, now + POLL_S))
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self.loop.call_at(at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        try:
            self.apply(self.balancer.poll(self.now()))
        finally:
            self.arm()

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
