"""What a simulated runtime is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field

from autoscaler.mock.fault import Fault
from autoscaler.sim.replica_model import ReplicaModel


@dataclass(frozen=True, slots=True)
class MockSettings:
    """One process; `count` replicas on consecutive ports, each with slots, memory and faults of its own."""

    host: str = "127.0.0.1"
    port: int = 0
    """First port; 0: any free ones."""
    count: int = 1
    name: str = "mock-model"
    """Model it serves; others get 404 as from vLLM. Requests that name none are taken."""
    replica: ReplicaModel = field(default_factory=ReplicaModel)
    speed: float = 1.0
    """Model seconds per wall second."""
    flush_s: float = 0.01
    """Wall seconds between two events of a stream, at least; tokens that arise within go out together. Below a step's
    12 ms at speed 1, so each token is an event of its own there."""
    default_output_tokens: int = 128
    """Length of an answer when the request says nothing of it."""
    start_up_s: float = 0.0
    """Model seconds until it is up."""
    start_up_refuses: bool = True
    """While it starts, connections are refused (vLLM, Ollama); else every path answers 503 (llama.cpp)."""
    warm_up_s: float = 0.0
    """Model seconds after its start in which steps take `warm_up_factor` times longer (kernels compile)."""
    warm_up_factor: float = 3.0
    drain_s: float = 30.0
    """Wall seconds that SIGTERM leaves to running requests."""
    instant: bool = False
    """Answer at once without any model, for measuring what stands in front of it."""
    stream_interval_s: float = 0.02
    """Pace of a stream in instant mode; 50 tokens a second is a usual one."""
    fault: Fault = field(default_factory=Fault)
