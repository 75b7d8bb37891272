"""Runtimes that hold one model and answer to any name of it (llama.cpp, TGI)."""

from __future__ import annotations

import pytest

from lb.effects import Rejected
from lb.errors import Reason
from lb.runtime import ProbeResult, ProbeStatus
from lb.settings import LbSettings
from tests.lb.balancer.driver import Box, endpoint


def box() -> Box:
    return Box(LbSettings(), any_model=frozenset({"llamacpp"}))


def found(runtime: str, *models: str) -> ProbeResult:
    return ProbeResult(ProbeStatus.READY, models=models, runtime=runtime)


def join(world: Box, name: str, runtime: str, *models: str) -> None:
    world.probe(name, found(runtime, *models), times=2)


def test_a_name_that_nobody_lists_goes_to_a_replica_that_answers_to_any() -> None:
    world = box()
    world.endpoints(endpoint("llama", models=()), endpoint("vllm", models=()))
    join(world, "llama", "llamacpp", "tiny")
    join(world, "vllm", "vllm", "big")
    assert {world.routed(model="gpt-4o").replica.id for _ in range(8)} == {"llama"}  # type: ignore[union-attr]
    assert world.routed(model="tiny").replica.id == "llama"  # type: ignore[union-attr]
    assert {world.routed(model="big").replica.id for _ in range(8)} == {"vllm"}  # type: ignore[union-attr]


@pytest.mark.parametrize("runtime", ["vllm", "llamacpp"])
def test_models_that_an_operator_lists_are_all_there_are(runtime: str) -> None:
    world = box()
    world.endpoints(endpoint("one", models=("tiny",)))
    join(world, "one", runtime, "tiny")
    decision = world.offer(model="gpt-4o")
    assert isinstance(decision, Rejected)
    assert decision.reason is Reason.MODEL_NOT_FOUND


def test_a_runtime_that_is_found_out_after_its_models_answers_to_any_from_then_on() -> None:
    world = box()
    world.endpoints(endpoint("one", models=()))
    world.probe("one", ProbeResult(ProbeStatus.READY, models=("tiny",)), times=2)
    assert isinstance(world.offer(model="gpt-4o"), Rejected)
    world.probe("one", found("llamacpp", "tiny"))
    assert world.routed(model="gpt-4o").replica.id == "one"  # type: ignore[union-attr]
