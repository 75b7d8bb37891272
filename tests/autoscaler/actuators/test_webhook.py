"""Services that hang, refuse, redirect and babble; and keys that tell repetition from recurrence."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from autoscaler.action import Action, Drain, GiveUp, Stop, Undrain
from autoscaler.actuator import ActuatorError
from autoscaler.actuators.webhook import Keys
from lb.errors import SettingsError
from tests.autoscaler.actuators.worlds import POOL, WebhookWorld, up

DRAIN, UNDRAIN, STOP = Drain(POOL, "a", 60.0, "r"), Undrain(POOL, "a", "r"), Stop(POOL, "a", 0, "r")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[WebhookWorld]:
    made = WebhookWorld(tmp_path)
    await made.open()
    yield made
    await made.close()


async def test_a_token_is_sent_and_a_missing_one_is_told_at_once(world: WebhookWorld) -> None:
    actuator = world.actuator(token="env:TOKEN")
    await actuator.observe()
    assert world.requests[-1].headers["Authorization"] == "Bearer secret"
    await actuator.close()
    with pytest.raises(SettingsError, match="env:NOWHERE is missing"):
        world.actuator(token="env:NOWHERE")
    plain = world.actuator()
    await plain.observe()
    assert "Authorization" not in world.requests[-1].headers
    await plain.close()


async def test_a_service_that_hangs_is_left_at_the_deadline(world: WebhookWorld) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    world.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    actuator = world.actuator(timeout="200ms")
    async with asyncio.timeout(5.0):
        with pytest.raises(ActuatorError, match=r"did not answer within 0.2 s"):
            await actuator.observe()
        with pytest.raises(ActuatorError, match=r"did not answer within 0.2 s"):
            await actuator.apply(STOP)
    await actuator.close()
    listener.close()
    with pytest.raises(ActuatorError, match="cannot be asked"):
        await actuator.observe()
    await actuator.close()


Answer = Callable[[], web.StreamResponse]


@pytest.mark.parametrize(
    ("answer", "message", "later_s"),
    [
        (lambda: web.Response(status=503, text="stock", headers={"Retry-After": "120"}), "answered 503.*: stock", 120),
        (lambda: web.Response(status=429, headers={"Retry-After": "99999"}), "answered 429.*it said nothing", 600),
        (lambda: web.Response(status=500, headers={"Retry-After": "soon"}), "answered 500", None),
        (lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), "answered 302", None),
        (lambda: web.Response(status=401, text="who are you?"), "answered 401.*who are you", None),
    ],
)
async def test_a_refusal_says_what_was_said_and_when_to_come_back(
    world: WebhookWorld, answer: Answer, message: str, later_s: float | None
) -> None:
    world.answer = lambda _request: answer()
    actuator = world.actuator()
    for attempt in (actuator.observe(), actuator.apply(up("a")), actuator.apply(STOP)):
        with pytest.raises(ActuatorError, match=message) as caught:
            await attempt
        assert caught.value.retry_after_s == later_s
    await actuator.close()


@pytest.mark.parametrize(
    "body", ["", "{}", "[]", '{"replicas": {}}', "x" * (5 << 20), '{"replicas": [], "complet": false}']
)
async def test_an_answer_that_is_none_is_an_error_and_not_an_empty_fleet(world: WebhookWorld, body: str) -> None:
    world.answer = lambda _request: web.Response(text=body)
    actuator = world.actuator()
    with pytest.raises(ActuatorError):
        await actuator.observe()
    await actuator.close()


async def test_what_exists_or_is_gone_already_is_well(world: WebhookWorld) -> None:
    actuator = world.actuator()
    world.answer = lambda _request: web.Response(status=409)
    await actuator.apply(up("a"))
    with pytest.raises(ActuatorError, match="answered 409"):
        await actuator.apply(STOP)
    for status in (404, 410):
        world.answer = lambda _request, status=status: web.Response(status=status)  # type: ignore[misc]
        await actuator.apply(STOP)
        await actuator.apply(DRAIN)
        with pytest.raises(ActuatorError, match=f"answered {status}"):
            await actuator.apply(up("a"))
        with pytest.raises(ActuatorError, match=f"answered {status}"):
            await actuator.observe()
    await actuator.close()


async def test_every_post_carries_its_key(world: WebhookWorld) -> None:
    actuator = world.actuator()
    for action in (up("a"), up("a"), DRAIN, DRAIN, UNDRAIN, DRAIN):
        await actuator.apply(action)
    keys = [request.headers["Idempotency-Key"] for request in world.requests if request.method == "POST"]
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]
    assert len(set(keys)) == 4
    await actuator.close()


def test_a_start_has_one_key_for_ever_and_everything_else_one_for_each_occurrence() -> None:
    first, second = Keys("1"), Keys("2")
    assert first.key(up("a", "b")) == second.key(up("b", "a"))
    assert first.key(up("a")) != first.key(up("a", kind="bad"))
    actions: list[Action] = [DRAIN, STOP, GiveUp(POOL, "b", None, 0, "r"), GiveUp(POOL, None, "c", 0, "r")]
    keys = [first.key(action) for action in actions]
    assert [first.key(action) for action in actions[1:]] == keys[1:]
    assert first.key(DRAIN) not in keys, "it was stopped in between, so this is another drain"
    assert len({*keys, *(second.key(action) for action in actions)}) == 8


def test_keys_are_remembered_within_bounds() -> None:
    keys = Keys("1")
    for number in range(10_050):
        keys.key(Stop(POOL, f"r{number}", 0, "r"))
    assert len(keys._last) == 10_000
