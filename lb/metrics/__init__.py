"""Prometheus metrics of the load balancer; see README.md beside this file for the list."""

from __future__ import annotations

from lb.metrics.collector import CONTENT_TYPE, LbMetrics, Reload
from lb.metrics.loop_lag import PauseWatch

__all__ = ["CONTENT_TYPE", "LbMetrics", "PauseWatch", "Reload"]
