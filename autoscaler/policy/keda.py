"""Settings of the service that KEDA asks for the sizes of advised pools."""

from __future__ import annotations

from lb.settings.proxy import Section


class KedaSettings(Section):
    """KEDA's external scaler. It has no secrets and no TLS: whoever reaches it reads names and sizes of pools."""

    listen: str = "127.0.0.1:9500"
    """Where it answers gRPC, host:port. Only this machine reaches the default; KEDA in a cluster needs `0.0.0.0:9500`
    and a NetworkPolicy that lets its operator in and nobody else."""
