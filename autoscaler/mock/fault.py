"""Ways in which a runtime fails, switchable while it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, get_type_hints

from autoscaler.mock.errors import FaultError


class FaultKind(StrEnum):
    """The ways there are, by the words of the control path."""

    NONE = "none"
    HANG = "hang"
    """Accepts and answers nothing, on any path; running streams fall silent."""
    STALL = "stall"
    """The engine stands still while /health and /metrics answer (vLLM with a hung engine core)."""
    RESET = "reset"
    """Resets the connection of every request."""
    CLOSE = "close"
    """Closes the connection of every request without a byte."""
    STATUS = "status"
    """Answers requests with `status`; /health stays good."""
    LOADING = "loading"
    """Answers 503 `Loading model` on every path (llama.cpp)."""
    DYING = "dying"
    """/health is good, every request gets 500 `cannot schedule new futures after shutdown` (vLLM told to stop)."""
    SLOW = "slow"
    """Steps take `factor` times longer."""
    RESET_STREAM = "reset_stream"
    """Resets a stream after `tokens` tokens."""
    CUT_STREAM = "cut_stream"
    """Closes a stream's connection after `tokens` tokens, without the last chunk of the transfer encoding."""
    TRUNCATE_STREAM = "truncate_stream"
    """Ends a stream after `tokens` tokens as if it were whole, but without finish reason and `[DONE]`."""
    SILENT_STREAM = "silent_stream"
    """Leaves a stream open without a further byte after `tokens` tokens."""
    CRASH = "crash"
    """The process ends at once."""


STREAM_FAULTS = frozenset(
    {FaultKind.RESET_STREAM, FaultKind.CUT_STREAM, FaultKind.TRUNCATE_STREAM, FaultKind.SILENT_STREAM}
)
REQUEST_FAULTS = frozenset({FaultKind.RESET, FaultKind.CLOSE, FaultKind.STATUS, FaultKind.DYING})


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail, and its details."""

    kind: FaultKind = FaultKind.NONE
    status: int = 503
    retry_after_s: float | None = None
    factor: float = 2.5
    tokens: int = 5
    count: int | None = None
    """Only the next so many requests fail; None: all."""

    def used_once(self) -> Fault:
        """What is left of it after one more request failed."""
        if self.count is None:
            return self
        return replace(self, count=self.count - 1) if self.count > 1 else Fault()


def parse_fault(text: str) -> Fault:
    """`kind` or `kind:name=value,name=value` (`status:status=500,count=3`). Raises FaultError."""
    kind, _, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    return fault_from_mapping({"kind": kind, **{name.strip(): value.strip() for name, _, value in pairs}})


def fault_from_mapping(values: dict[str, Any]) -> Fault:
    """From JSON or the command line. Raises FaultError, naming the field and what would be right."""
    known = get_type_hints(Fault)
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise FaultError(f"fault: {name!r} is not a field; known: {', '.join(known)}")
        try:
            if name == "kind":
                fields[name] = FaultKind(value)
            elif value is None and name in ("retry_after_s", "count"):
                fields[name] = None
            else:
                fields[name] = float(value) if name in ("retry_after_s", "factor") else int(value)
        except (ValueError, TypeError):
            right = ", ".join(FaultKind) if name == "kind" else "a number"
            raise FaultError(f"fault: {name} is {value!r}; right would be {right}") from None
    fault = Fault(**fields)
    if not (100 <= fault.status <= 599 and fault.factor > 0 and fault.tokens >= 0):
        raise FaultError("fault: status must be 100 to 599, factor above 0, tokens at least 0")
    return fault
