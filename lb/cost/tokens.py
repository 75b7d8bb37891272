"""Prompt tokens from prompt bytes, corrected by the token counts that runtimes return."""

from __future__ import annotations

import math

from lb.settings import CostSettings

MAX_MODELS = 1024
"""Model names come from clients, so the memory is bounded; far more models than one balancer serves."""

_MIN_FACTOR, _MAX_FACTOR = 0.2, 6.0
"""Bounds of the correction: 4 bytes a token by the prior lies between 0.67 and 20. Byte-level tokenizers need 1 byte a
token, no known one averages more than 12; a count outside that is not of this prompt (images, cached-only counts)."""
_STEP = 0.05
"""Weight of one observation in the long run: 20 requests follow a change of prompt style, and one does not matter."""
_CLIP = 0.5
"""Furthest (in log) that one observation may pull: a factor of 1.65."""
_HALF_BYTES = 512.0
"""A prompt of this size teaches half as much as a long one: the chat template's own tokens blur short prompts."""
_ERROR_STEP = 0.02


class _Ratio:
    __slots__ = ("count", "log_factor")

    def __init__(self) -> None:
        self.log_factor = 0.0
        self.count = 0


def _script_class(wide_ratio: float) -> int:
    """0: ASCII text and code; 1: mixed or accented; 2: mostly CJK, Cyrillic or the like; tokens differ in bytes."""
    return 0 if wide_ratio < 0.08 else (1 if wide_ratio < 0.5 else 2)


class TokenEstimator:
    """tokens = factor(model, script) x (ascii_bytes / bytes_per_token + wide_bytes / wide_bytes_per_token).

    The factor is an exponentially weighted mean in log space with clipped steps; it starts at 1, the prior of the
    settings, and a model that was never seen uses the factor of all models together for its script.
    """

    __slots__ = ("_all", "_ascii", "_factors", "_models", "_wide", "error", "observations")

    def __init__(self, settings: CostSettings) -> None:
        self._ascii = 1.0 / settings.bytes_per_token
        self._wide = 1.0 / settings.wide_bytes_per_token
        self._models: dict[str | None, tuple[_Ratio, _Ratio, _Ratio]] = {}
        self._factors: dict[tuple[str | None, int], float] = {}
        self._all = (_Ratio(), _Ratio(), _Ratio())
        self.error = 0.0
        """Mean absolute error of the estimates, relative to the true count, over about the last 50 requests."""
        self.observations = 0

    def estimate(self, model: str | None, prompt_bytes: int, wide_ratio: float) -> float:
        """Expected prompt tokens."""
        script = 0 if wide_ratio < 0.08 else (1 if wide_ratio < 0.5 else 2)
        factor = self._factors.get((model, script))
        if factor is None:
            factor = math.exp(self._all[script].log_factor)
        return factor * prompt_bytes * (self._ascii + (self._wide - self._ascii) * wide_ratio)

    def learn(self, model: str | None, prompt_bytes: int, wide_ratio: float, actual_tokens: int) -> None:
        """Take in the true count. Counts of nothing (0, or a prompt of unknown size) teach nothing."""
        if prompt_bytes <= 0 or actual_tokens <= 0:
            return
        prior = prompt_bytes * (self._ascii + (self._wide - self._ascii) * wide_ratio)
        ratio = actual_tokens / prior
        if not _MIN_FACTOR <= ratio <= _MAX_FACTOR:
            return
        miss = abs(self.estimate(model, prompt_bytes, wide_ratio) - actual_tokens) / actual_tokens
        self.observations += 1
        self.error += (miss - self.error) * max(_ERROR_STEP, 1.0 / self.observations)
        script = _script_class(wide_ratio)
        ratios = self._models.pop(model, None)
        if ratios is None:
            if len(self._models) >= MAX_MODELS:
                self._forget(next(iter(self._models)))
            start = [_Ratio(), _Ratio(), _Ratio()]
            for one, every in zip(start, self._all, strict=True):
                one.log_factor = every.log_factor
            ratios = (start[0], start[1], start[2])
        self._models[model] = ratios
        observed = math.log(ratio)
        trust = prompt_bytes / (prompt_bytes + _HALF_BYTES)
        _move(ratios[script], observed, trust)
        _move(self._all[script], observed, trust)
        self._factors[(model, script)] = math.exp(ratios[script].log_factor)

    def ratio(self, model: str | None, wide_ratio: float = 0.0) -> float:
        """Bytes a token as now believed, for text with this share of bytes outside ASCII."""
        return 1.0 / self.estimate(model, 1, wide_ratio)

    @property
    def models(self) -> int:
        """How many models have a ratio of their own."""
        return len(self._models)

    def _forget(self, model: str | None) -> None:
        del self._models[model]
        for script in range(3):
            self._factors.pop((model, script), None)


def _move(ratio: _Ratio, observed: float, trust: float) -> None:
    ratio.count += 1
    step = max(_STEP, 1.0 / (ratio.count + 1)) * trust
    ratio.log_factor += step * max(-_CLIP, min(_CLIP, observed - ratio.log_factor))
