"""The process: the only place that constructs and wires. See README.md beside this file."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import ssl
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry

from autoscaler.credentials import Credentials, exposed_secrets, peers_of, read_credentials
from autoscaler.errors import EXIT_BAD_INPUT, EXIT_FAILURE, EXIT_OK, StartError
from autoscaler.failures import cannot_listen, in_words, require_files
from autoscaler.loops.scaling import Scaling
from autoscaler.metrics import ControlMetrics, ForecastMetrics, SourceMetrics, StoreMetrics, watch_gpus
from autoscaler.policy.load import LoadedPolicy, load
from autoscaler.policy.schema import Policy
from autoscaler.policy.watch import FileWatch, watch
from autoscaler.process import fit_descriptors, require_c_parser, settle_memory
from autoscaler.restart import gpu_restart_needed, restart_needed
from autoscaler.roots import RootTasks
from autoscaler.source_tasks import SourceTasks
from autoscaler.systemd import Notifier, inherited_sockets
from lb.access_log import AccessLog, Observers
from lb.address import parse_address, show_address
from lb.admin import AdminHooks, AdminServer
from lb.auth import Authenticator
from lb.clock import SYSTEM_CLOCK, Clock
from lb.effects import ReplicaChanged
from lb.errors import Reason, SettingsError
from lb.feeds.gpu_feeds import GpuFeeds
from lb.feeds.runtime_feeds import RuntimeFeeds
from lb.gateway import Gateway
from lb.log import Log, configure
from lb.metrics import LbMetrics, Reload
from lb.proxy.observer import Observer, RequestRecord
from lb.proxy.server import ProxyServer
from lb.settings import LbSettings
from lb.sources import build_sources
from lb.yaml_document import DocumentError

log = logging.getLogger(__name__)


def run_daemon(policy: Policy, loaded: LoadedPolicy | None = None) -> int:
    """Serve until a signal; returns the exit code. `loaded` is the file that the policy came from, None: there is none.

    Raises StartError when it cannot start.
    """
    require_c_parser()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Daemon(policy, loaded, os.environ).run())


class _Current:
    """An observer that can be exchanged while requests are in progress."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    def finished(self, record: RequestRecord) -> None:
        self.observer.finished(record)

    def refused(self, reason: Reason) -> None:
        self.observer.refused(reason)

    def connections(self, delta: int) -> None:
        self.observer.connections(delta)


class Daemon:
    """Everything of one process. Made inside its event loop by `run`."""

    def __init__(self, policy: Policy, loaded: LoadedPolicy | None, environ: Mapping[str, str]) -> None:
        self._loaded = loaded
        self._directory = loaded.directory if loaded is not None else None
        self._environ = environ
        self._notifier = Notifier(environ)
        self._settings, self._told = _fitted(policy.lb, self._directory)
        self._started_with = self._settings
        self._gpu_settings = policy.gpus
        self._policy = policy
        self._state = "starting"
        self._restart_needed: list[str] = []

    async def run(self) -> int:
        """Start, serve, drain."""
        log_output = configure(self._settings.log)
        self._log = log_output
        try:
            self._build(self._credentials(self._settings))
            try:
                await self._start()
                await self._serve()
            finally:
                await self._end()
            return EXIT_FAILURE if self._roots.failed_name is not None else EXIT_OK
        finally:
            self._log.writer.close()

    # construction --------------------------------------------------------------------------------------------------

    def _credentials(self, settings: LbSettings) -> Credentials:
        try:
            credentials = read_credentials(settings, self._directory)
        except SettingsError as error:
            raise StartError(str(error), EXIT_BAD_INPUT) from None
        for reference in exposed_secrets(settings, self._directory):
            log.warning("a secret file is readable by every user; chmod 600 it", extra={"secret": reference})
        return credentials

    def _build(self, credentials: Credentials) -> None:
        settings, loop = self._settings, asyncio.get_running_loop()
        self._clock = Clock(monotonic=loop.time, wall=SYSTEM_CLOCK.wall)
        self._roots = RootTasks()
        self._stopping = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._reload_tasks: set[asyncio.Task[Reload]] = set()
        self._cut: asyncio.Task[int] | None = None
        self._gateway = Gateway(settings, loop, random.Random(os.urandom(16)))
        registry = CollectorRegistry()
        self._metrics = LbMetrics(registry, version=version("tidegate"), now=loop.time)
        self._metrics.watch_gateway(self._gateway)
        self._metrics.watch_log(self._log)
        self._access = _Current(self._access_log(settings, self._log))
        self._authenticator = Authenticator(settings.keys)
        self._server = ProxyServer(
            self._gateway,
            settings,
            Observers(self._metrics, self._access),
            self._authenticator,
            upstream_key=credentials.upstream_key,
        )
        self._feeds = RuntimeFeeds(
            self._gateway,
            settings.health,
            rng=random.Random(os.urandom(16)),
            authorization=credentials.upstream_authorization,
        )
        self._gpus = GpuFeeds(self._gateway, self._gpu_settings, rng=random.Random(os.urandom(16)))
        watch_gpus(registry, self._gpus, self._gpu_settings, SYSTEM_CLOCK.monotonic)
        self._sources = SourceTasks(self._gateway, self._roots, self._clock)
        SourceMetrics(registry, lambda: self._sources.sources, loop.time)
        self._scaling = Scaling(
            self._gateway, self._clock, ControlMetrics(registry), self._roots,
            base=self._base, environ=self._environ, gpus=self._gpus.snapshot,
        )  # fmt: skip
        StoreMetrics(registry, lambda: self._scaling.store_counts)
        ForecastMetrics(registry, self._scaling.forecast_states, lambda: self._scaling.forecast_restarts)
        hooks = AdminHooks(
            allowed_hosts=settings.admin.allowed_hosts,
            version=version("tidegate"),
            readiness=lambda: "" if self._state == "ready" else self._state,
            reload=self.reload if self._loaded is not None else None,
            details=self._details,
            gpus=self._gpus.snapshot,
            feeds=self._feeds,
            pools=self._scaling.pools,
            explain_pool=self._scaling.explain,
        )
        try:
            self._admin = AdminServer(
                self._gateway, self._metrics, hooks, listen=settings.admin.listen, token=credentials.admin_token
            )
            self._wanted_sources = build_sources(settings, self._base, self._clock)
            self._peers = peers_of(settings, credentials)
            self._prepared = self._scaling.prepare(self._policy)
        except SettingsError as error:
            raise StartError(str(error), EXIT_BAD_INPUT) from None

    @property
    def _base(self) -> Path:
        """Where relative names of the policy lie."""
        return self._directory if self._directory is not None else Path.cwd()

    def _access_log(self, settings: LbSettings, output: Log) -> AccessLog:
        return AccessLog(settings.log.access, output.write, SYSTEM_CLOCK.wall)

    # life ----------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Learn of the replicas, then listen: the first client finds them in place."""
        self._gateway.subscribe(_log_change)
        # What was imported is half a million objects; a collection while weeks of history are read need not see them.
        settle_memory()
        self._sources.follow(self._wanted_sources)
        await asyncio.sleep(0)
        await self._feeds.start()
        await self._gpus.start()
        self._gpus.follow(self._peers)
        await self._scaling.start(self._prepared)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon, "SIGHUP")
        sockets = inherited_sockets(self._environ, os.getpid())
        settle_memory()
        # From here on somebody may wait for the loop; before, what holds it up delays nobody's stream.
        self._metrics.pauses.start()
        self._roots.start("loop lag", self._metrics.pauses.run())
        address = await self._listen(sockets)
        try:
            await self._admin.start()
        except (OSError, UnicodeError) as error:
            raise cannot_listen("the admin API", self._settings.admin.listen, "--admin", error) from None
        if self._loaded is not None:
            self._watch = FileWatch(self._loaded.path, self._loaded.digest)
            self._roots.start("policy watch", watch(self._watch, lambda: self._reload_soon("the file changed")))
            self._metrics.reloaded(Reload(ok=True, at=self._clock.wall(), policy_hash=self._loaded.digest))
        if self._notifier.watchdog_s is not None:
            self._roots.start("watchdog", self._show_life(self._notifier.watchdog_s / 2))
        self._state = "ready"
        if self._told is not None:
            log.warning(self._told)
        replicas = len(self._gateway.endpoints())
        if not self._wanted_sources and not self._policy.scaling.pools:
            log.warning("no replicas are configured: requests wait until one is added over the admin API")
        log.info("ready", extra={"listen": address, "admin": self._admin.address, "replicas": replicas})
        self._notifier.ready(f"serving on {address}")

    async def _listen(self, sockets: list[socket.socket]) -> str:
        try:
            require_files(self._settings)
            host, port = parse_address(self._settings.listen)
            addresses = await self._server.start(host, port, sockets=sockets)
        except ssl.SSLError as error:
            raise StartError(f"lb.tls: the certificate or its key cannot be used: {error.reason or error}") from None
        except (OSError, UnicodeError) as error:
            raise cannot_listen("the data plane", self._settings.listen, "--listen", error) from None
        return " ".join(show_address(*address) for address in addresses)

    async def _serve(self) -> None:
        """Until a signal or a failed root task, and then until the running requests are done."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._stopping, self._roots.failed)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self._state = "draining"
        grace_s = self._settings.timeouts.shutdown_s
        running = self._server.requests_in_progress
        log.info("draining", extra={"requests": running, "grace_s": grace_s, "failed": self._roots.failed_name})
        self._notifier.stopping(f"draining {running} requests")
        await self._scaling.halt()
        cut = await self._server.drain(grace_s)
        if self._cut is not None:
            cut += await self._cut
        log.info("drained", extra={"cut": cut})

    async def _end(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
        for task in self._reload_tasks:
            task.cancel()
        await self._roots.stop_all()
        await self._scaling.close()
        await self._feeds.stop()
        await self._gpus.stop()
        await self._admin.stop()
        await self._server.close()
        self._gateway.close()
        self._metrics.pauses.stop()

    def _stop(self) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
        elif self._cut is None:
            log.warning("second signal: cutting the running requests")
            self._cut = asyncio.ensure_future(self._server.drain(0))

    async def _show_life(self, interval_s: float) -> None:
        """systemd restarts us when the event loop hangs and these stop."""
        while True:
            self._notifier.alive()
            await asyncio.sleep(interval_s)

    def _details(self) -> dict[str, object]:
        return {
            "policy": None if self._loaded is None else str(self._loaded.path),
            "restart_needed": self._restart_needed,
            "sources": self._sources.report(),
            "peers": self._gpus.report(),
        }

    # reload --------------------------------------------------------------------------------------------------------

    def _reload_soon(self, cause: str) -> None:
        if self._loaded is None:
            log.warning("nothing to reload: there is no policy file", extra={"cause": cause})
            return
        log.info("reading the policy again", extra={"cause": cause, "policy": str(self._loaded.path)})
        task = asyncio.ensure_future(self.reload())
        self._reload_tasks.add(task)
        task.add_done_callback(self._reload_tasks.discard)

    async def reload(self) -> Reload:
        """Read the policy again and use it whole, or keep the old one whole and say why."""
        async with self._reloading:
            assert self._loaded is not None
            self._notifier.reloading(self._clock.monotonic())
            try:
                self._watch.take()
                loaded = await asyncio.to_thread(load, self._loaded.path)
                await self._use(loaded)
                result = Reload(ok=True, at=self._clock.wall(), policy_hash=loaded.digest)
                log.info("policy in force", extra={"policy_hash": loaded.digest[:12]})
            except (DocumentError, SettingsError, StartError, OSError) as error:
                reason = in_words(error, self._loaded)
                result = Reload(ok=False, at=self._clock.wall(), policy_hash=self._loaded.digest, error=reason)
                log.error("policy refused, the old one stays in force", extra={"error": reason})
            for line in self._restart_needed:
                log.warning(line)
            self._metrics.reloaded(result)
            self._notifier.ready("policy in force" if result.ok else "policy refused, the old one is in force")
            return result

    async def _use(self, loaded: LoadedPolicy) -> None:
        """Whatever can fail comes first; from `reconfigure` of the server on, nothing does."""
        settings, told = _fitted(loaded.policy.lb, loaded.directory)
        require_files(settings)
        credentials = read_credentials(settings, loaded.directory)
        sources = build_sources(settings, loaded.directory, self._clock)
        prepared = self._scaling.prepare(loaded.policy)
        if settings.keys != self._settings.keys:
            self._authenticator = Authenticator(settings.keys)
        self._server.reconfigure(settings, self._authenticator, upstream_key=credentials.upstream_key)
        if told is not None and told != self._told:
            log.warning(told)
        self._gateway.reconfigure(settings)
        self._feeds.reconfigure(settings.health, authorization=credentials.upstream_authorization)
        self._gpus.reconfigure(loaded.policy.gpus)
        self._gpus.follow(peers_of(settings, credentials))
        self._sources.follow(sources)
        if settings.log != self._settings.log:
            self._change_log(settings)
        self._restart_needed = restart_needed(self._started_with, settings)
        self._restart_needed += gpu_restart_needed(self._gpu_settings, loaded.policy.gpus)
        self._restart_needed += self._scaling.restart_needed(prepared)
        self._loaded, self._settings, self._told = loaded, settings, told
        await self._scaling.use(prepared)

    def _change_log(self, settings: LbSettings) -> None:
        old, self._log = self._log, configure(settings.log)
        self._metrics.watch_log(self._log)
        self._access.observer = self._access_log(settings, self._log)
        old.writer.close()


def _fitted(settings: LbSettings, directory: Path | None) -> tuple[LbSettings, str | None]:
    """Settings as this process can use them, and what to tell of the difference."""
    settings, told = fit_descriptors(settings)
    if settings.tls is not None and directory is not None:
        tls = settings.tls
        files = {"certificate": tls.certificate, "key": tls.key, "client_ca": tls.client_ca}
        located = {field: str(directory / name) for field, name in files.items() if name is not None}
        settings = settings.model_copy(update={"tls": tls.model_copy(update=located)})
    return settings, told


def _log_change(change: ReplicaChanged) -> None:
    log.info(
        "replica %s", change.current,
        extra={"replica": change.replica_id, "was": str(change.previous), "reason": change.reason},
    )  # fmt: skip
