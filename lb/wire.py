"""What a node tells its peers of itself (`/v1/node`): its GPUs, and what it has in flight at each replica. Pure.

The GPUs are `nvml.wire`'s message; `replicas` is added to it. A reader that knows only the GPUs ignores the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from lb.views import ReplicaView
from nvml.sample import NodeSnapshot
from nvml.wire import to_dict

MAX_REPLICAS = 10_000
"""More than any fleet has; a message with more is not from a Tidegate."""

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Sum = Annotated[float, msgspec.Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class Share:
    """What one Tidegate has sent to one replica and not seen the end of."""

    url: str
    """The replica, by the address that both know it under."""
    in_flight: _Count
    """Requests."""
    outstanding_tokens: _Sum
    """Predicted prompt and output tokens still to compute for them."""


class _Message(msgspec.Struct):
    replicas: Annotated[tuple[Share, ...], msgspec.Meta(max_length=MAX_REPLICAS)] = ()


_DECODER = msgspec.json.Decoder(_Message)


class ShareError(ValueError):
    """The replicas of a peer's message cannot be read; the message names the field."""


def node_message(node: NodeSnapshot, replicas: Iterable[ReplicaView], now: float) -> dict[str, Any]:
    """The body of `/v1/node` as Python values. `now`: monotonic seconds of the machine that read the GPUs."""
    shares = [Share(view.url, view.in_flight, view.outstanding_tokens) for view in replicas]
    return {**to_dict(node, now), "replicas": shares}


def read_shares(message: bytes) -> tuple[Share, ...]:
    """The replicas of a peer's message; none where it has none. Raises ShareError."""
    try:
        return _DECODER.decode(message).replicas
    except msgspec.MsgspecError as error:
        raise ShareError(str(error)) from None
    except RecursionError:
        raise ShareError("the message is nested too deeply") from None
