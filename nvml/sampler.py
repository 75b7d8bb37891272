"""The one thread that talks to the driver. Everyone else reads what it has published, and never waits.

A call that hangs stops this thread and nothing else: the published snapshot grows old, and `latest` says so, with
the name of
the call. A hung driver call cannot be cancelled, and a second thread would hang in the same lock, so none is started;
readings resume when the call comes back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from nvml.driver import Driver
from nvml.errors import DriverError, DriverFault
from nvml.health import NodeHistory, as_of, driver_failed, fold
from nvml.owners import OwnerResolver
from nvml.sample import GpuSample, GpuState, HungCall, NodeSnapshot
from nvml.sanity import sanitise
from nvml.settings import NvmlSettings

log = logging.getLogger(__name__)

REOPEN_DOUBLINGS = 10  # `reopen_lost_s` grows to at most this many times itself


class Sampler:
    """Samples a driver at `settings.interval_s`. `step` does one round and may be called without the thread.

    `clock`: monotonic seconds. `on_snapshot` is called in the sampler's thread after each round; to reach an event
    loop from it,
    use `loop.call_soon_threadsafe`.
    """

    def __init__(
        self,
        driver: Driver,
        settings: NvmlSettings,
        owners: OwnerResolver | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_snapshot: Callable[[NodeSnapshot], None] | None = None,
    ) -> None:
        self._driver = driver
        self._settings = settings
        self._owners = owners
        self._clock = clock
        self._on_snapshot = on_snapshot
        self._history = NodeHistory()
        self._version: str | None = None
        self._opened = False
        self._failures = 0
        self._retry_at = 0.0
        self._reopen_at: float | None = None
        self._reopen_wait_s = settings.reopen_lost_s
        self._ports: frozenset[int] | None = None
        self._published = NodeSnapshot(
            taken_at=clock(), fault=DriverFault.STARTING, detail="no reading was finished yet"
        )
        self._busy_since: float | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # --- for everyone

    def latest(self, now: float | None = None) -> NodeSnapshot:
        """The last snapshot as it may be believed now. Never blocks; any thread may call it."""
        now = self._clock() if now is None else now
        busy_since = self._busy_since
        hung = None
        if busy_since is not None and now - busy_since > self._settings.deadline_s:
            call, index = self._driver.doing
            hung = HungCall(call, index, now - busy_since)
        return as_of(self._published, now, self._settings.deadline_s, hung)

    def declare_ports(self, ports: Iterable[int] | None) -> None:
        """The TCP ports of the replicas on this machine, so that their memory can be told from others'. None: not
        known."""
        self._ports = None if ports is None else frozenset(ports)

    def reconfigure(self, settings: NvmlSettings) -> None:
        """Other intervals, deadlines and thresholds, from the next round on; what is remembered of the cards stays.
        Driver, library and `owners_refresh` are those the sampler was made with."""
        self._settings = settings

    def start(self) -> None:
        """Starts the thread. It is a daemon thread: a hung call does not keep the process from ending."""
        if self._thread is not None:
            raise RuntimeError("the sampler was started before; make a new one")
        self._thread = threading.Thread(target=self._run, name="nvml-sampler", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> bool:
        """Ends the thread. False when it hangs in a call and was left behind."""
        self._stop.set()
        if self._thread is None:
            self._close()
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- the thread

    def _run(self) -> None:
        next_at = self._clock()
        while not self._stop.is_set():
            self.step()
            next_at = max(next_at + self._settings.interval_s, self._clock())
            self._stop.wait(max(0.0, next_at - self._clock()))
        self._close()

    def step(self) -> NodeSnapshot:
        """One round: open if need be, read, judge, publish. Never raises."""
        now = self._clock()
        self._busy_since = now
        try:
            snapshot = self._round(now)
        except DriverError as error:
            snapshot = self._refused(error, now)
        except Exception:
            log.exception("sampling the GPUs failed")
            snapshot = self._refused(DriverError(DriverFault.INTERNAL, "the sampler failed; see the log"), now)
        self._busy_since = None
        self._publish(snapshot)
        return snapshot

    def _round(self, now: float) -> NodeSnapshot:
        if not self._opened:
            if now < self._retry_at:
                return driver_failed(self._history, now, *self._last_refusal())
            self._version = self._driver.open()
            self._opened = True
            log.info("reading GPUs, driver version %s", self._version or "unknown")
        samples = tuple(self._attach(sanitise(sample), now) for sample in self._driver.read(now))
        if self._owners is not None:
            self._owners.forget_except(p.pid for s in samples for p in s.processes or ())
        self._failures = 0
        self._history, snapshot = fold(
            self._history,
            samples,
            now,
            self._settings.health,
            driver_version=self._version,
            replica_ports=self._ports,
        )
        self._plan_reopen(snapshot, now)
        return snapshot

    def _attach(self, sample: GpuSample, now: float) -> GpuSample:
        if self._owners is None or sample.processes is None:
            return sample
        most = self._settings.max_processes_per_gpu
        attached = self._owners.attach(sample.processes[:most], now) + sample.processes[most:]
        if not attached and not self._owners.sees_host:
            return replace(sample, processes=None)  # inside a container the driver lists nothing, whatever runs
        return replace(sample, processes=attached)

    def _plan_reopen(self, snapshot: NodeSnapshot, now: float) -> None:
        """The library lists cards only when it is opened, so a card that came back is found by opening it again, now
        and then."""
        if not any(gpu.state is GpuState.LOST for gpu in snapshot.gpus):
            self._reopen_at, self._reopen_wait_s = None, self._settings.reopen_lost_s
        elif self._reopen_at is None:
            self._reopen_at = now + self._reopen_wait_s
        elif now >= self._reopen_at:
            self._close()
            self._retry_at = now
            longest = REOPEN_DOUBLINGS * self._settings.reopen_lost_s
            self._reopen_wait_s = min(2 * self._reopen_wait_s, longest)
            self._reopen_at = now + self._reopen_wait_s

    def _refused(self, error: DriverError, now: float) -> NodeSnapshot:
        if self._published.fault is not error.fault:
            # A machine without GPUs is nothing to warn of; one whose cards were read before and are not now is.
            absent = error.fault in (DriverFault.LIBRARY_MISSING, DriverFault.NOT_LOADED) and not self._history.gpus
            log.log(logging.INFO if absent else logging.WARNING, "GPU signals are off: %s", error)
        self._close()
        wait = min(self._settings.backoff_initial_s * 2.0 ** min(self._failures, 30), self._settings.backoff_max_s)
        self._failures += 1
        self._retry_at = now + wait
        return driver_failed(self._history, now, error.fault, error.detail)

    def _last_refusal(self) -> tuple[DriverFault, str]:
        return self._published.fault or DriverFault.STARTING, self._published.detail

    def _close(self) -> None:
        self._opened = False
        self._driver.close()

    def _publish(self, snapshot: NodeSnapshot) -> None:
        self._published = snapshot
        if self._on_snapshot is None:
            return
        try:
            self._on_snapshot(snapshot)
        except Exception:
            log.exception("the receiver of GPU snapshots failed")
