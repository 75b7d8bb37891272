"""The scorers by name. Weights in the policy use these names."""

from __future__ import annotations

from lb.routing.scorer import Preference, Scorer
from lb.routing.scorers.adapter import Adapter
from lb.routing.scorers.delay_to_others import DelayToOthers
from lb.routing.scorers.gpu_headroom import GpuHeadroom
from lb.routing.scorers.kv_pressure import KvPressure
from lb.routing.scorers.loaded_model import LoadedModel
from lb.routing.scorers.predicted_work import PredictedWork
from lb.routing.scorers.prefix_affinity import PrefixAffinity
from lb.routing.scorers.queue_depth import QueueDepth
from lb.routing.scorers.session import Session
from lb.routing.scorers.warmup import Warmup
from lb.routing.scorers.zone import Zone

SCORERS: dict[str, Scorer] = {
    "predicted_work": PredictedWork(),
    "delay_to_others": DelayToOthers(),
    "queue_depth": QueueDepth(),
    "kv_pressure": KvPressure(),
    "warmup": Warmup(),
    "gpu_headroom": GpuHeadroom(),
    "zone": Zone(),
}

PREFERENCES: dict[str, Preference] = {
    "prefix_affinity": PrefixAffinity(),
    "session": Session(),
    "adapter": Adapter(),
    "loaded_model": LoadedModel(),
}

WEIGHTS: dict[str, float] = dict.fromkeys((*SCORERS, *PREFERENCES), 1.0)
"""Default weights: all terms are in seconds, so that 1 is the honest value."""
