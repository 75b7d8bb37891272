"""Blocking work beside the event loop, which also serves requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from autoscaler.actuator import ActuatorError

P = ParamSpec("P")
T = TypeVar("T")

_DEADLINE_S = 8.0
"""Looking through /proc and a directory takes milliseconds; a state directory on a dead network share, for ever."""


async def in_thread(work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """The result of `work`. ActuatorError if a file cannot be used, or if it takes too long and is left to itself."""
    try:
        async with asyncio.timeout(_DEADLINE_S):
            return await asyncio.to_thread(work, *args, **named)
    except TimeoutError:
        raise ActuatorError(f"the state directory did not answer within {_DEADLINE_S:g} s") from None
    except OSError as error:
        raise ActuatorError(f"the state directory cannot be used: {error}") from error
