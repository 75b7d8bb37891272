"""What the simulated runtime refuses."""

from __future__ import annotations


class FaultError(ValueError):
    """A fault that cannot be set up."""


class RequestError(Exception):
    """A request that gets an error as vLLM would give it."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param
