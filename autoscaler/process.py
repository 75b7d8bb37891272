"""What the process itself needs before it may serve: file descriptors, the C parser, a number to seed randomness."""

from __future__ import annotations

import gc
import resource

from autoscaler.errors import StartError
from lb.settings import LbSettings

RESERVED_FDS = 64
"""Descriptors kept for the log, DNS, admin, probes and the policy file, so that they work while clients are many."""
LEAST_CONNECTIONS = 64
"""With room for fewer clients than this there is no point in starting."""


def fitting_connections(wanted: int, available_fds: int) -> int:
    """Client connections that the descriptors allow: each may hold one to a replica as well."""
    return max(0, min(wanted, (available_fds - RESERVED_FDS) // 2))


def fit_descriptors(settings: LbSettings) -> tuple[LbSettings, str | None]:
    """Raise the soft limit of descriptors to the hard one and, where that is too low, lower `limits.connections`.

    Returns the settings to use and what to tell the operator. Raises StartError when hardly any client would fit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.limits.connections
    needed = 2 * wanted + RESERVED_FDS
    target = hard if hard != resource.RLIM_INFINITY else max(soft, needed)
    if soft != resource.RLIM_INFINITY and soft < target:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            soft = target
        except (OSError, ValueError):
            # A container runtime may forbid it; what there is may be enough.
            pass
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return settings, None
    connections = fitting_connections(wanted, soft)
    if connections < LEAST_CONNECTIONS:
        raise StartError(
            f"only {soft} file descriptors are allowed (ulimit -n), room for {connections} clients; "
            f"set LimitNOFILE={needed} in the unit, or ulimit -n {needed}"
        )
    limits = settings.limits.model_copy(update={"connections": connections})
    told = (
        f"limits.connections lowered from {wanted} to {connections}, as only {soft} file descriptors are allowed; "
        f"LimitNOFILE={needed} (ulimit -n) makes room for all"
    )
    return settings.model_copy(update={"limits": limits}), told


def require_c_parser() -> None:
    """Refuse to start without llhttp in C: it is what keeps smuggled requests out.

    Raises StartError.
    """
    try:
        from httptools.parser import parser
    except ImportError as error:
        raise StartError(f"the HTTP parser httptools cannot be loaded ({error}); reinstall it with a wheel") from None
    if not str(getattr(parser, "__file__", "")).endswith((".so", ".pyd")):
        raise StartError("the HTTP parser httptools is not its C extension; reinstall it with a wheel")


_GC_ALLOCATIONS = 20_000
"""Requests make no cycles: a collection every 700 allocations (Python's own) would look for nothing 30 times as often,
4 % of the CPU at full load."""


def settle_memory() -> None:
    """What lives from here on is requests; the garbage collector need not walk through what was there before."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS)
