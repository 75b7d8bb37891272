"""What a pool wants, or why nobody can say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wish:
    """The size of one pool as somebody else may act on it."""

    replicas: int
    """Of no meaning while there is a `problem`."""
    problem: str = ""
    """Why `replicas` must not be acted on; empty: it may."""
