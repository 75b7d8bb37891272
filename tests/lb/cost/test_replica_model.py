import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.cost.replica_model import TAUGHT, ReplicaModel, typical
from lb.settings import CostSettings

Seconds = Callable[[float, float], float]


def prefill(slow: float = 1.0) -> Seconds:
    """A GPU like the prior's, `slow` times slower."""
    return lambda tokens, running: slow * (0.03 + 1.1e-4 * tokens + 8e-9 * tokens * tokens + 2e-4 * running)


def step(slow: float = 1.0) -> Seconds:
    return lambda running, context: slow * (0.013 + 2e-4 * running + 1.5e-7 * context)


def watch(
    model: ReplicaModel, requests: int, slow: float = 1.0, seed: int = 1, sizes: tuple[float, float] = (6.5, 1.2)
) -> None:
    """Feed `requests` requests of a replica that is `slow` times slower than the prior, with 20 % of noise."""
    choose = random.Random(seed)
    first, gap = prefill(slow), step(slow)
    for _ in range(requests):
        tokens, running = choose.lognormvariate(*sizes), choose.randint(0, 40)
        model.learn_first_token(tokens, 0, running, first(tokens, running) * choose.lognormvariate(0, 0.2))
        running = choose.randint(1, 40)
        context = running * choose.uniform(200, 2500)
        model.learn_steps(running, context, gap(running, context) * choose.lognormvariate(0, 0.1), 16)


def test_prior_follows_settings_and_weight() -> None:
    given_settings = CostSettings(prefill_s_per_token=1e-4, step_s=0.01, step_s_per_running=1e-4)
    model, fast = ReplicaModel(given_settings), ReplicaModel(given_settings, weight=2.0)
    assert model.step_s(10, 0) == pytest.approx(0.011)
    assert model.prefill_s(10_000, 0) == pytest.approx(0.02 + 1.0 + 0.15)
    assert fast.prefill_s(5000, 8) == pytest.approx(model.prefill_s(5000, 8) / 2)
    assert model.error == 0


@pytest.mark.parametrize("slow", [0.4, 1.0, 2.5, 8.0])
def test_a_replica_of_any_speed_is_known_after_50_requests(slow: float) -> None:
    model = ReplicaModel(CostSettings())
    watch(model, 50, slow)
    for tokens, running in ((300, 5), (2000, 20), (8000, 30)):
        assert model.prefill_s(tokens, running) == pytest.approx(prefill(slow)(tokens, running), rel=0.3)
    for running, context in ((1, 500), (20, 20_000), (40, 60_000)):
        assert model.step_s(running, context) == pytest.approx(step(slow)(running, context), rel=0.25)


def test_mixed_speeds_need_no_table_and_rank_after_ten_requests() -> None:
    models = {slow: ReplicaModel(CostSettings()) for slow in (1.0, 2.5)}
    for slow, model in models.items():
        watch(model, 10, slow)
    assert models[2.5].prefill_s(1500, 10) > 1.7 * models[1.0].prefill_s(1500, 10)
    assert models[2.5].step_s(10, 10_000) > 1.7 * models[1.0].step_s(10, 10_000)


def test_a_replica_that_slows_down_is_noticed_within_50_requests() -> None:
    model = ReplicaModel(CostSettings())
    watch(model, 300)
    watch(model, 50, slow=2.5, seed=2)
    assert model.prefill_s(1500, 10) == pytest.approx(prefill(2.5)(1500, 10), rel=0.25)
    assert model.step_s(10, 10_000) == pytest.approx(step(2.5)(10, 10_000), rel=0.25)


def test_a_stall_of_a_minute_does_not_wreck_it() -> None:
    model = ReplicaModel(CostSettings())
    watch(model, 100)
    before = model.prefill_s(1500, 10), model.step_s(10, 10_000)
    model.learn_first_token(1500, 0, 10, 60.0)
    model.learn_steps(10, 10_000, 60.0, 1)
    assert model.prefill_s(1500, 10) < 1.2 * before[0]
    assert model.step_s(10, 10_000) < 1.2 * before[1]
    watch(model, 30, seed=3)
    assert model.prefill_s(1500, 10) == pytest.approx(prefill()(1500, 10), rel=0.25)


def test_even_as_the_first_observation_a_stall_is_survived() -> None:
    model = ReplicaModel(CostSettings())
    model.learn_first_token(1500, 0, 10, 60.0)
    watch(model, 30)
    assert model.prefill_s(1500, 10) == pytest.approx(prefill()(1500, 10), rel=0.3)


def test_work_ahead_is_not_taken_for_slowness() -> None:
    model, choose = ReplicaModel(CostSettings()), random.Random(4)
    for _ in range(200):
        tokens, ahead = choose.uniform(100, 2000), choose.uniform(0, 20_000)
        model.learn_first_token(tokens, ahead, 0, 0.03 + 1.1e-4 * (tokens + ahead))
    assert model.prefill_s(1000, 0) == pytest.approx(0.14, rel=0.25)


def test_derating_applies_and_lifts_at_once_without_being_learned() -> None:
    model = ReplicaModel(CostSettings())
    watch(model, 200)
    full = model.step_s(10, 10_000)
    model.derate(0.5)
    assert model.step_s(10, 10_000) == pytest.approx(2 * full)
    assert model.coefficients.speed_ratio == pytest.approx(0.5)
    watch(model, 200, slow=2.0, seed=5)
    model.derate(1.0)
    assert model.step_s(10, 10_000) == pytest.approx(full, rel=0.1)


def test_error_is_that_of_the_noise_once_learned() -> None:
    model = ReplicaModel(CostSettings())
    watch(model, 300)
    assert 0.05 < model.first_token_error < 0.3
    assert 0.02 < model.step_error < 0.2
    assert model.error == max(model.first_token_error, model.step_error)
    assert model.coefficients.first_tokens == model.coefficients.steps == 300


def test_unusable_observations_teach_nothing() -> None:
    model = ReplicaModel(CostSettings())
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        model.learn_first_token(100, 0, 1, bad)
        model.learn_steps(1, 100, bad, 4)
    model.learn_first_token(-1, 0, 1, 1.0)
    model.learn_steps(1, 100, 0.01, 0)
    assert model.coefficients.first_tokens == model.coefficients.steps == 0


timings = st.tuples(st.floats(0, 2e5), st.floats(0, 1e6), st.floats(0, 500), st.floats(1e-6, 1e4), st.floats(1e-6, 1e3))


@settings(max_examples=60, deadline=None)
@given(st.lists(timings, max_size=120))
def test_whatever_is_observed_predictions_stay_positive_finite_and_monotonic(
    seen: list[tuple[float, float, float, float, float]],
) -> None:
    model = ReplicaModel(CostSettings())
    for tokens, ahead, running, first_s, gap_s in seen:
        model.learn_first_token(tokens, ahead, running, first_s)
        model.learn_steps(running, tokens, gap_s, 16)
    costs = model.coefficients
    prior = ReplicaModel(CostSettings()).coefficients
    for name in (
        "prefill_fixed_s",
        "prefill_s_per_token",
        "prefill_s_per_token2",
        "step_fixed_s",
        "step_s_per_running",
    ):
        assert 0.0099 <= getattr(costs, name) / getattr(prior, name) <= 100.1
    assert 0 < model.prefill_s(0, 0) <= model.prefill_s(100, 0) <= model.prefill_s(100, 10) < 1e6
    assert 0 < model.step_s(0, 0) <= model.step_s(1, 0) <= model.step_s(1, 1000) < 1e6
    assert model.error <= 10.0


def test_a_new_replica_starts_from_the_median_of_those_that_have_learned() -> None:
    peers = [ReplicaModel(CostSettings()) for _ in range(4)]
    for seed, (peer, slow) in enumerate(zip(peers, (0.25, 0.3, 8.0), strict=False)):
        watch(peer, 100, slow, seed)
    model = ReplicaModel(CostSettings())
    assert model.assume(typical(peers))
    assert model.step_s(8, 4000) == pytest.approx(step(0.3)(8, 4000), rel=0.25)
    assert model.prefill_s(2000, 8) == pytest.approx(prefill(0.3)(2000, 8), rel=0.25)
    assert model.coefficients.steps == 0
    assert not model.assume(typical([])), "it keeps what it was told when nobody says anything"
    assert model.step_s(8, 4000) < step(0.5)(8, 4000)


def test_peers_are_taken_at_their_full_speed_and_weight() -> None:
    peer, twice = ReplicaModel(CostSettings()), ReplicaModel(CostSettings(), weight=2.0)
    watch(peer, 100, 0.3)
    at_full_speed = peer.step_s(8, 4000)
    peer.derate(0.5)
    twice.assume(typical([peer]))
    assert twice.step_s(8, 4000) == pytest.approx(at_full_speed / 2)
    twice.derate(0.5)
    assert twice.step_s(8, 4000) == pytest.approx(at_full_speed)


def test_own_observations_replace_what_peers_said() -> None:
    peer, model = ReplicaModel(CostSettings()), ReplicaModel(CostSettings())
    watch(peer, 100, 0.3)
    model.assume(typical([peer]))
    watch(model, 50, 2.5, seed=2)
    assert not model.assume(typical([peer]))
    assert model.step_s(8, 4000) == pytest.approx(step(2.5)(8, 4000), rel=0.3)


def test_few_observations_are_not_typical_of_anything() -> None:
    peer, model = ReplicaModel(CostSettings()), ReplicaModel(CostSettings())
    watch(peer, TAUGHT - 1, 0.3)
    assert not model.assume(typical([peer]))
    watch(peer, 1, 0.3)
    assert model.assume(typical([peer]))
