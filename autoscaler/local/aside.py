"""Blocking work beside the event loop, which also serves requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from autoscaler.actuator import ActuatorError

P = ParamSpec("P")
T = TypeVar("T")

_DEADLINE_S = 10.0
"""Looking through /proc and a directory takes milliseconds; a state directory on a dead network share, for ever."""


async def in_thread(work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """The result of `work`. ActuatorError if it takes too long; it is then left to itself."""
    try:
        async with asyncio.timeout(_DEADLINE_S):
            return await asyncio.to_thread(work, *args, **named)
    except TimeoutError:
        raise ActuatorError(f"the state directory did not answer within {_DEADLINE_S:g} s") from None
