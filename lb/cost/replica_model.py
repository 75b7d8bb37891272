"""Seconds that a replica takes: its prefill and its decode step, fitted online from what the proxy sees of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from lb.cost.robust_fit import RobustFit
from lb.settings import CostSettings

_PREFILL_STEPS = 2.0
"""A prompt's fixed cost in decode steps: the step it waits for and the one it ends in. Published fits have 1 to 6."""
_QUADRATIC_RATIO = 1.5e-5
"""c/b of a + b*n + c*n*n. Attention over n tokens takes 2*layers*width*n operations a token beside two a parameter: an
8B model (32 layers of 4,096) gives 1.6e-5, a 70B (80 of 8,192) 0.9e-5. Fits of whole serving stacks reach 7.7e-5
(vllm-router's coefficients); too high a prior makes the first prompts of 100,000 tokens look like minutes of work."""
_CONTEXT_RATIO = 1.33e-5
"""Cost of one token of context in a decode step, in fixed step times: 1.42e-7 over 0.0106 in the same coefficients."""
_DERATE_MIN = 0.05
_NOISE_MIN = 0.1
"""A mean over many gaps is steadier than one gap, but they share the moment they were taken in."""
TAUGHT = 5
"""Observations that make a model worth copying: a machine 10 times faster than the prior is found with four."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Learned coefficients, seconds, at the speed that applies now (derating included)."""

    prefill_fixed_s: float
    prefill_s_per_token: float
    prefill_s_per_token2: float
    prefill_s_per_running: float
    step_fixed_s: float
    step_s_per_running: float
    step_s_per_context_token: float
    speed_ratio: float
    """Full speed that remains, 1.0: not derated."""
    first_tokens: int
    """Observations behind the prefill coefficients."""
    steps: int
    """Observations behind the step coefficients."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What machines of one kind take, at full speed and weight 1; a part that none of them has learned is None."""

    prefill: tuple[float, float, float, float] | None = None
    """Seconds: fixed, per token, per token squared, per running request."""
    step: tuple[float, float, float] | None = None
    """Seconds: fixed, per running request, per token of context."""


class ReplicaModel:
    """prefill_s = a + b*n + c*n*n + d*running;  step_s = a + b*running + c*context_tokens.

    Starts from the settings' prior divided by the declared weight, or from what its peers have learned. Observations
    are taken back to full speed before they are learned, so that `derate` can apply and lift a slow-down at once
    without teaching it.
    """

    __slots__ = (
        "_pa", "_pb", "_pc", "_pd", "_prefill", "_prefill_prior", "_sa", "_sb", "_sc", "_slow", "_step", "_step_prior",
        "_weight",
    )  # fmt: skip

    def __init__(self, settings: CostSettings, weight: float = 1.0) -> None:
        self._weight = weight
        per_token, step = settings.prefill_s_per_token / weight, settings.step_s / weight
        per_running = settings.step_s_per_running / weight
        self._prefill_prior = (_PREFILL_STEPS * step, per_token, per_token * _QUADRATIC_RATIO, per_running)
        self._step_prior = (step, per_running, step * _CONTEXT_RATIO)
        self._prefill = RobustFit()
        self._step = RobustFit()
        self._slow = 1.0
        self._set_prefill()
        self._set_step()

    def prefill_s(self, tokens: float, running: float) -> float:
        """Time to compute `tokens` uncached prompt tokens beside `running` requests in decode, nothing ahead of it."""
        return self._pa + tokens * (self._pb + tokens * self._pc) + self._pd * running

    def step_s(self, running: float, context_tokens: float) -> float:
        """Time between two tokens of each of `running` requests that hold `context_tokens` tokens together."""
        return self._sa + self._sb * running + self._sc * context_tokens

    def learn_first_token(self, uncached_tokens: float, tokens_ahead: float, running: float, observed_s: float) -> None:
        """Take in a time to first token. `tokens_ahead`: prompt tokens that the replica had to compute before these.

        Leave out requests that waited for a slot in the runtime's queue: that wait is not the replica's speed.
        """
        if uncached_tokens < 0.0 or tokens_ahead < 0.0 or running < 0.0:
            return
        a, b, c, d = self._prefill_prior
        tokens = uncached_tokens + tokens_ahead
        if self._prefill.learn(
            a, b * tokens, c * uncached_tokens * uncached_tokens, d * running, observed_s / self._slow
        ):
            self._set_prefill()

    def learn_steps(self, running: float, context_tokens: float, mean_gap_s: float, n: int) -> None:
        """Take in the mean gap over `n` tokens of one stream, with the average load of that time."""
        if n < 1 or running < 0.0 or context_tokens < 0.0:
            return
        a, b, c = self._step_prior
        noise = max(_NOISE_MIN, 1.0 / n)
        if self._step.learn(a, b * running, c * context_tokens, 0.0, mean_gap_s / self._slow, noise):
            self._set_step()

    def assume(self, prior: Prior) -> bool:
        """Start from `prior` where nothing was observed yet. False: all was, or the prior says nothing of the rest."""
        prefill, step, weight = prior.prefill, prior.step, self._weight
        if prefill is not None and not self._prefill.observations:
            a, b, c, d = prefill
            self._prefill_prior = (a / weight, b / weight, c / weight, d / weight)
            self._set_prefill()
        else:
            prefill = None
        if step is not None and not self._step.observations:
            a, b, c = step
            self._step_prior = (a / weight, b / weight, c / weight)
            self._set_step()
        else:
            step = None
        return prefill is not None or step is not None

    def derate(self, ratio: float) -> None:
        """Speed that remains (0.6: throttled to 60 %), as known from elsewhere; 1.0 lifts it."""
        self._slow = 1.0 / min(1.0, max(_DERATE_MIN, ratio))
        self._set_prefill()
        self._set_step()

    @property
    def untaught(self) -> bool:
        """Some part of it has not been observed."""
        return not self._prefill.observations or not self._step.observations

    @property
    def lesson(self) -> Prior:
        """What others may take over from it."""
        scale = self._weight / self._slow
        return Prior(
            (self._pa * scale, self._pb * scale, self._pc * scale, self._pd * scale)
            if self._prefill.observations >= TAUGHT
            else None,
            (self._sa * scale, self._sb * scale, self._sc * scale) if self._step.observations >= TAUGHT else None,
        )

    @property
    def coefficients(self) -> Coefficients:
        return Coefficients(
            self._pa, self._pb, self._pc, self._pd, self._sa, self._sb, self._sc,
            1.0 / self._slow, self._prefill.observations, self._step.observations,
        )  # fmt: skip

    @property
    def first_token_error(self) -> float:
        """Mean absolute error of predicted times to first token, relative, recent; 0 before the first."""
        return self._prefill.error

    @property
    def step_error(self) -> float:
        """Mean absolute error of predicted step times, relative, recent; 0 before the first."""
        return self._step.error

    @property
    def error(self) -> float:
        """The larger of both errors."""
        return max(self._prefill.error, self._step.error)

    def _set_prefill(self) -> None:
        fit, slow = self._prefill, self._slow
        a, b, c, d = self._prefill_prior
        self._pa, self._pb, self._pc, self._pd = (
            fit.t0 * a * slow,
            fit.t1 * b * slow,
            fit.t2 * c * slow,
            fit.t3 * d * slow,
        )

    def _set_step(self) -> None:
        fit, slow = self._step, self._slow
        a, b, c = self._step_prior
        self._sa, self._sb, self._sc = fit.t0 * a * slow, fit.t1 * b * slow, fit.t2 * c * slow


def typical(models: Iterable[ReplicaModel]) -> Prior:
    """The median of each coefficient over those models that have learned it."""
    lessons = [model.lesson for model in models]
    prefills = [lesson.prefill for lesson in lessons if lesson.prefill is not None]
    steps = [lesson.step for lesson in lessons if lesson.step is not None]
    prefill = step = None
    if prefills:
        a, b, c, d = (median(column) for column in zip(*prefills, strict=True))
        prefill = (a, b, c, d)
    if steps:
        a, b, c = (median(column) for column in zip(*steps, strict=True))
        step = (a, b, c)
    return Prior(prefill, step)
