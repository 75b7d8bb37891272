"""The admin API: what an operator, a probe and Prometheus ask. See `lb.admin.openapi` for its document."""

from __future__ import annotations

from lb.admin.handlers import AdminHooks
from lb.admin.server import AdminServer

__all__ = ["AdminHooks", "AdminServer"]
