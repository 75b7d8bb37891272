"""Which port and which GPUs a new replica of this machine gets."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass

from autoscaler.actuator import ActuatorError
from nvml.sample import GpuSnapshot, GpuState, NodeSnapshot

_IDLE_USED_RATIO = 0.05
"""A card with less of its memory in use is nobody's: an idle driver and a display take a few hundred MiB, an engine
takes most of a card."""


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU that a replica may get."""

    visible: str
    """Its name for CUDA_VISIBLE_DEVICES."""
    uuid: str | None = None

    def held(self, claimed: Collection[str]) -> bool:
        return self.visible in claimed or self.uuid in claimed


def free_cards(
    wanted: str | tuple[int | str, ...], node: NodeSnapshot | None, claimed: Collection[str]
) -> tuple[list[Card], str]:
    """Cards that a replica could get now, and in words what is amiss if there are none.

    `wanted`: the setting `gpus`. `claimed`: names of cards that other replicas hold. Cards are named by index where
    they have one, as some engines read numbers from CUDA_VISIBLE_DEVICES and stumble over UUIDs.
    """
    if isinstance(wanted, tuple):
        known = {} if node is None else {**{str(gpu.index): gpu for gpu in node.gpus}, **{g.uuid: g for g in node.gpus}}
        cards = [_named(str(one), known.get(str(one))) for one in wanted]
        usable = [
            card
            for card, gpu in zip(cards, (known.get(card.visible) for card in cards), strict=True)
            if not card.held(claimed) and (gpu is None or gpu.takes_new_work)
        ]
        return usable, f"of the {len(wanted)} listed in `gpus`, all are taken or unwell"
    if node is None or node.fault is not None:
        why = "no reading" if node is None else node.detail or str(node.fault)
        return [], f"no GPU can be read here ({why}); list them in `gpus`, or write `gpus: none`"
    free = [Card(str(gpu.index), gpu.uuid) for gpu in node.gpus if _idle(gpu)]
    free = [card for card in free if not card.held(claimed)]
    return free, f"of {len(node.gpus)} in this machine, all are taken or unwell"


def free_port(ports: tuple[int, int], claimed: Collection[int], can_bind: Callable[[int], int | None]) -> int:
    """The first port of the range that nobody has. `can_bind`: the port that was bound for a moment, or None.

    Raises ActuatorError if there is none.
    """
    first, last = ports
    # The kernel's choice (port 0) may fall on a claimed one whose replica does not listen yet.
    for candidate in range(first, last + 1) if first else [0] * (len(claimed) + 1):
        if candidate not in claimed:
            port = can_bind(candidate)
            if port is not None and port not in claimed:
                return port
    raise ActuatorError(f"no free port from {first} to {last}; widen `ports`")


def can_bind(host: str, port: int) -> int | None:
    """Bind for a moment; the port, None if somebody listens there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of a predecessor that are still closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return None
            raise ActuatorError(f"cannot look for a free port on {host}: {error.strerror}") from None
        return int(probe.getsockname()[1])


def _named(name: str, gpu: GpuSnapshot | None) -> Card:
    if gpu is not None:
        return Card(name, gpu.uuid)
    return Card(name, None if name.isdigit() else name)


def _idle(gpu: GpuSnapshot) -> bool:
    """Well, and nobody's. A card in MIG mode has no whole to give; its instances are listed by hand."""
    if gpu.state not in (GpuState.OK, GpuState.DEGRADED) or gpu.mig_enabled:
        return False
    if not gpu.memory_total_bytes or gpu.memory_used_bytes is None:
        return False
    return gpu.memory_used_bytes <= gpu.memory_total_bytes * _IDLE_USED_RATIO
