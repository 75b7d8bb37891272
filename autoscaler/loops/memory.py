"""What the controller must not forget, and how its instants are read by another process: pure.

Instants are monotonic seconds. A process of the same boot has the same clock; after a reboot they are moved by what
wall clocks say of the time between.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite


def pack(state: Mapping[str, object], *, boot: str, now: float, wall: float) -> dict[str, object]:
    """`Controller.state()` with the clocks that it was taken at. `boot` names the boot of the machine."""
    return {"boot": boot, "now": now, "wall": wall, "pools": dict(state)}


def unpack(packed: Mapping[str, object], *, boot: str, now: float, wall: float) -> dict[str, object]:
    """The state in the present clock; empty if it is none."""
    pools, then, wall_then = packed.get("pools"), packed.get("now"), packed.get("wall")
    if not isinstance(pools, Mapping) or not _number(then) or not _number(wall_then):
        return {}
    assert isinstance(then, int | float)
    assert isinstance(wall_then, int | float)
    if packed.get("boot") == boot and boot and then <= now:
        shift = 0.0
    else:
        # A wall clock that went back says nothing; then no time has passed.
        shift = now - then - max(0.0, wall - wall_then)
    return {str(name): _moved(pool, shift) for name, pool in pools.items() if isinstance(pool, Mapping)}


def _moved(pool: Mapping[str, object], shift: float) -> dict[str, object]:
    """One pool's state with its instants moved; parts of another shape are left out."""
    moved = dict(pool)
    draining = pool.get("draining")
    if "draining" in moved:
        found = draining.items() if isinstance(draining, Mapping) else ()
        moved["draining"] = {str(name): at + shift for name, at in found if _number(at)}
    starts = pool.get("starts")
    if isinstance(starts, Mapping):
        moved["starts"] = {**starts, "open": _opened(starts.get("open"), shift)}
    return moved


def _opened(opened: object, shift: float) -> dict[str, object]:
    if not isinstance(opened, Mapping):
        return {}
    good = {
        str(name): one
        for name, one in opened.items()
        if isinstance(one, list) and len(one) == 3 and isinstance(one[0], str) and _number(one[1])
    }
    return {name: [kind, at + shift, replica] for name, (kind, at, replica) in good.items()}


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
