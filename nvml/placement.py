"""One replica's view of its cards: the worst of them counts, because an engine over several cards runs at the
slowest one's pace
and dies with the first. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nvml.sample import SEVERITY, GpuSnapshot, GpuState, NodeSnapshot, Reason


@dataclass(frozen=True, slots=True)
class Standing:
    """What the cards under one replica allow. `state` is `unknown` when the replica could not be tied to any card."""

    state: GpuState = GpuState.UNKNOWN
    takes_new_work: bool = True
    headroom_ratio: float | None = None
    """Smallest headroom ÷ total over the cards. Engines preallocate, so little of it is normal."""
    speed_ratio: float = 1.0
    """Smallest over the cards."""
    age_s: float | None = None
    """Of the oldest reading."""
    reasons: tuple[Reason, ...] = ()
    gpus: tuple[str, ...] = ()
    """UUIDs, by index."""


def cards_of(node: NodeSnapshot, *, port: int | None = None, uuids: Collection[str] = ()) -> tuple[GpuSnapshot, ...]:
    """The cards of a replica: those named (a MIG instance's UUID names its card), else those on which its port was
    seen."""
    if uuids:
        wanted = set(uuids)
        return tuple(gpu for gpu in node.gpus if gpu.uuid in wanted or any(m.uuid in wanted for m in gpu.mig))
    return () if port is None else node.on_port(port)


def standing(gpus: Collection[GpuSnapshot], now: float) -> Standing:
    """`now`: the clock of the machine that made (or, for a peer's snapshot, received) the readings, in seconds."""
    if not gpus:
        return Standing()
    rooms = [
        gpu.headroom_bytes / gpu.memory_total_bytes
        for gpu in gpus
        if gpu.headroom_bytes is not None and gpu.memory_total_bytes
    ]
    return Standing(
        state=max((gpu.state for gpu in gpus), key=SEVERITY.__getitem__),
        takes_new_work=all(gpu.takes_new_work for gpu in gpus),
        headroom_ratio=min(rooms) if len(rooms) == len(gpus) else None,
        speed_ratio=min(gpu.speed_ratio for gpu in gpus),
        age_s=max(gpu.age_s(now) for gpu in gpus),
        reasons=tuple(reason for gpu in sorted(gpus, key=lambda g: -SEVERITY[g.state]) for reason in gpu.reasons),
        gpus=tuple(gpu.uuid for gpu in gpus),
    )
