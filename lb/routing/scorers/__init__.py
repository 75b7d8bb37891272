"""The scorers by name. Weights in the policy use these names."""

from __future__ import annotations

from lb.routing.scorer import Preference, Scorer
from lb.routing.scorers.adapter import Adapter
from lb.routing.scorers.curiosity import Curiosity
from lb.routing.scorers.gpu_headroom import GpuHeadroom
from lb.routing.scorers.kv_pressure import KvPressure
from lb.routing.scorers.loaded_model import LoadedModel
from lb.routing.scorers.predicted_work import PredictedWork
from lb.routing.scorers.prefix_affinity import PrefixAffinity
from lb.routing.scorers.queue_depth import QueueDepth
from lb.routing.scorers.session import Session
from lb.routing.scorers.slowed_others import SlowedOthers
from lb.routing.scorers.stalled_others import StalledOthers
from lb.routing.scorers.warmup import Warmup
from lb.routing.scorers.zone import Zone

SCORERS: dict[str, Scorer] = {
    "predicted_work": PredictedWork(),
    "stalled_others": StalledOthers(),
    "slowed_others": SlowedOthers(),
    "queue_depth": QueueDepth(),
    "kv_pressure": KvPressure(),
    "warmup": Warmup(),
    "curiosity": Curiosity(),
    "gpu_headroom": GpuHeadroom(),
    "zone": Zone(),
}

PREFERENCES: dict[str, Preference] = {
    "prefix_affinity": PrefixAffinity(),
    "session": Session(),
    "adapter": Adapter(),
    "loaded_model": LoadedModel(),
}

FIRST_TOKEN = "first_token"  # noqa: S105 - not a secret
"""Not a scorer: the weight of a second before the first token, on top of what it weighs as any second of an answer."""

WEIGHTS: dict[str, float] = {**dict.fromkeys((*SCORERS, *PREFERENCES), 1.0), FIRST_TOKEN: 16.0, "stalled_others": 0.3}
"""Default weights. All terms are in seconds, so that 1 is the honest value if the sum of all end-to-end times is what
counts. It is not all: before the first token nobody reads, and a stream that stands still for a moment is often ahead
of its reader. The two exceptions were chosen over five workloads (see lb/routing/README.md)."""
