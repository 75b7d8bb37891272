"""Which changes of a policy wait for a restart. Everything else takes effect with a reload."""

from __future__ import annotations

from lb.settings import LbSettings
from nvml.settings import NvmlSettings


def restart_needed(running: LbSettings, wanted: LbSettings) -> list[str]:
    """What stays as it was until the process starts again, one line each."""
    lines = []
    if running.listen != wanted.listen:
        lines.append(f"lb.listen stays {running.listen}: {wanted.listen} needs a restart")
    if (running.tls is None) != (wanted.tls is None):
        lines.append("lb.tls: turning TLS on or off needs a restart")
    elif running.tls is not None and wanted.tls is not None and running.tls.client_ca != wanted.tls.client_ca:
        lines.append("lb.tls.client_ca needs a restart")
    if running.admin.listen != wanted.admin.listen:
        lines.append(f"lb.admin.listen stays {running.admin.listen}: {wanted.admin.listen} needs a restart")
    if running.admin.token != wanted.admin.token:
        lines.append("lb.admin.token needs a restart")
    return lines


def gpu_restart_needed(running: NvmlSettings, wanted: NvmlSettings) -> list[str]:
    """The same for the GPUs: how the driver is loaded, and what was built from the settings."""
    fields = ("driver", "library_path", "owners_refresh_s", "dcgm_names")
    return [
        f"gpus.{name.removesuffix('_s')} needs a restart"
        for name in fields
        if getattr(running, name) != getattr(wanted, name)
    ]
