"""Objects of the API as a cluster gives them, and what they are read with. All as values."""

from __future__ import annotations

from typing import Any

from autoscaler.actuators.kubernetes import pods

WALL = 1_767_225_600.0
"""2026-01-01T00:00:00Z"""
READING = pods.Reading("h100", now=1000.0, offset_s=1000.0 - WALL - 100.0, gpu_resource="nvidia.com/gpu", crashes=3,
                       pull_s=120.0, port=8000)  # fmt: skip
"""The clock is 100 s after the new year."""


def at(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}Z"


def condition(kind: str, status: str, second: int, reason: str = "") -> dict[str, str]:
    return {
        "type": kind,
        "status": status,
        "lastTransitionTime": at(second),
        "reason": reason,
        "message": f"m {reason}",
    }


def pod(*conditions: dict[str, str], gpus: str = "1", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "llm-abc-1", "namespace": "n", "uid": "u1", "creationTimestamp": at(10)},
        "spec": {
            "nodeName": "gpu-0",
            "containers": [{"name": "runtime", "resources": {"limits": {"nvidia.com/gpu": gpus}}}],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.7", "conditions": list(conditions), **status},
    }


def node(ready_at: int, gpus: str = "8") -> dict[str, Any]:
    return {
        "metadata": {"name": "gpu-0"},
        "status": {"conditions": [condition("Ready", "True", ready_at)], "allocatable": {"nvidia.com/gpu": gpus}},
    }


def running(second: int) -> dict[str, Any]:
    return {"name": "runtime", "state": {"running": {"startedAt": at(second)}}}
