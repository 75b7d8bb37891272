"""The policy of the demo: one pool of simulated replicas that the controller starts and ends on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from autoscaler.demo.traffic import MODEL

POOL = "chat"
STATE = "state"
"""Directory beside the policy."""
_MOST = 5
"""Replicas; each takes a tenth of a core, and 150 MB."""
_PORTS = (19_500, 19_999)
"""Other than a daemon's default, so that a demo disturbs none."""


def write_policy(directory: Path, listen: str, admin: str) -> Path:
    """Write it and return where."""
    command = [sys.executable, "-m", "autoscaler", "mock-runtime", "--port", "{port}", "--prefix-cache"]
    policy = {
        "lb": {"listen": listen, "admin": {"listen": admin}},
        "store": {"directory": STATE},
        "scaling": {
            # Everything goes faster than in earnest, where a replica takes minutes to start.
            "interval": "2s",
            "pools": [
                {
                    "name": POOL,
                    "models": [MODEL],
                    "mode": "own",
                    "min_replicas": 1,
                    "max_replicas": _MOST,
                    "start": {"p50": "6s", "p95": "10s", "unseen": "20s"},
                    "backlog": "20s",
                    "down": {"hold": "8s", "payback": "4s", "drain": "60s"},
                    "actuator": {
                        "type": "process",
                        "gpus": "none",
                        "ports": list(_PORTS),
                        "command": [*command, "--start-up", "4s", "--start-up-503"],
                    },
                }
            ],
        },
    }
    path = directory / "policy.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(policy, indent=1))
    return path
