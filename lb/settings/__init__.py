"""The balancer's part of the policy."""

from __future__ import annotations

from lb.settings.brain import AdmissionSettings, CostSettings, HealthSettings, RetrySettings, RoutingSettings
from lb.settings.edge import (
    AdminSettings,
    BackendSettings,
    DnsSource,
    FileSource,
    KeySettings,
    KubernetesSource,
    PeerSettings,
)
from lb.settings.proxy import (
    CustomSurface,
    ForwardingSettings,
    LimitSettings,
    LogSettings,
    PathSettings,
    Section,
    TimeoutSettings,
    TlsSettings,
)

__all__ = [
    "AdminSettings", "AdmissionSettings", "BackendSettings", "CostSettings", "CustomSurface", "DnsSource", "FileSource",
    "ForwardingSettings", "HealthSettings", "KeySettings", "KubernetesSource", "LbSettings", "LimitSettings",
    "LogSettings", "PathSettings", "PeerSettings", "RetrySettings", "RoutingSettings", "Section", "TimeoutSettings",
    "TlsSettings",
]  # fmt: skip


class LbSettings(Section):
    """The load balancer."""

    listen: str = "127.0.0.1:8080"
    """host:port of the data plane."""
    backends: tuple[BackendSettings, ...] = ()
    """Replicas with fixed addresses."""
    files: tuple[FileSource, ...] = ()
    dns: tuple[DnsSource, ...] = ()
    kubernetes: tuple[KubernetesSource, ...] = ()
    tls: TlsSettings | None = None
    admin: AdminSettings = AdminSettings()
    peers: tuple[PeerSettings, ...] = ()
    """Tidegates on other nodes whose GPUs carry replicas of ours."""
    keys: tuple[KeySettings, ...] = ()
    """API keys; empty: nobody is asked for one."""
    limits: LimitSettings = LimitSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    forwarding: ForwardingSettings = ForwardingSettings()
    paths: PathSettings = PathSettings()
    routing: RoutingSettings = RoutingSettings()
    cost: CostSettings = CostSettings()
    admission: AdmissionSettings = AdmissionSettings()
    health: HealthSettings = HealthSettings()
    retries: RetrySettings = RetrySettings()
    log: LogSettings = LogSettings()
