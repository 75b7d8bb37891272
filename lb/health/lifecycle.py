"""A replica's life as one table. Everything that moves a replica from state to state is here.

    joining --up--> ready --faults--> ejected --time--> trial --passed--> ready
       ^              |                                   |
       +---loading----+--down, refused, gpu lost--> failed --up--> ready
    any of them --drain--> draining --empty, no longer listed--> gone

A pair that is not in the table changes nothing.
"""

from __future__ import annotations

from enum import StrEnum

from lb.replica import ReplicaState


class LifeEvent(StrEnum):
    """What can happen to a replica."""

    UP = "up"
    """Enough good probes in a row."""
    UP_EARLY = "up_early"
    """The same, while a passive ejection still runs: a good probe does not shorten it."""
    LOADING = "loading"
    """It says itself that it is not ready."""
    DOWN = "down"
    """Enough failed probes in a row."""
    REFUSED = "refused"
    """Connections refused twice in short time: nobody listens."""
    EJECT = "eject"
    """Faults in a row, or no progress."""
    EJECTION_OVER = "ejection_over"
    TRIAL_PASSED = "trial_passed"
    GPU_LOST = "gpu_lost"
    GPU_BACK = "gpu_back"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    EMPTY = "empty"
    """Retired, and its last request ended."""


_S, _E = ReplicaState, LifeEvent

TRANSITIONS: dict[tuple[ReplicaState, LifeEvent], ReplicaState] = {
    (_S.JOINING, _E.UP): _S.READY,
    (_S.JOINING, _E.UP_EARLY): _S.EJECTED,
    (_S.JOINING, _E.DOWN): _S.FAILED,
    (_S.JOINING, _E.REFUSED): _S.FAILED,
    (_S.JOINING, _E.GPU_LOST): _S.FAILED,
    (_S.JOINING, _E.DRAIN): _S.DRAINING,
    (_S.READY, _E.LOADING): _S.JOINING,
    (_S.READY, _E.DOWN): _S.FAILED,
    (_S.READY, _E.REFUSED): _S.FAILED,
    (_S.READY, _E.EJECT): _S.EJECTED,
    (_S.READY, _E.GPU_LOST): _S.FAILED,
    (_S.READY, _E.DRAIN): _S.DRAINING,
    (_S.EJECTED, _E.EJECTION_OVER): _S.TRIAL,
    (_S.EJECTED, _E.LOADING): _S.JOINING,
    (_S.EJECTED, _E.DOWN): _S.FAILED,
    (_S.EJECTED, _E.REFUSED): _S.FAILED,
    (_S.EJECTED, _E.GPU_LOST): _S.FAILED,
    (_S.EJECTED, _E.DRAIN): _S.DRAINING,
    (_S.TRIAL, _E.TRIAL_PASSED): _S.READY,
    (_S.TRIAL, _E.EJECT): _S.EJECTED,
    (_S.TRIAL, _E.LOADING): _S.JOINING,
    (_S.TRIAL, _E.DOWN): _S.FAILED,
    (_S.TRIAL, _E.REFUSED): _S.FAILED,
    (_S.TRIAL, _E.GPU_LOST): _S.FAILED,
    (_S.TRIAL, _E.DRAIN): _S.DRAINING,
    (_S.FAILED, _E.UP): _S.READY,
    (_S.FAILED, _E.UP_EARLY): _S.EJECTED,
    (_S.FAILED, _E.LOADING): _S.JOINING,
    (_S.FAILED, _E.GPU_BACK): _S.JOINING,
    (_S.FAILED, _E.DRAIN): _S.DRAINING,
    (_S.DRAINING, _E.UNDRAIN): _S.JOINING,
    (_S.DRAINING, _E.EMPTY): _S.GONE,
}


def next_state(state: ReplicaState, event: LifeEvent) -> ReplicaState | None:
    """The state that `event` leads to, or None if it changes nothing."""
    return TRANSITIONS.get((state, event))
