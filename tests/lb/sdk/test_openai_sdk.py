"""The OpenAI Python SDK, unmodified, through the balancer: what works without it must work with it."""

from __future__ import annotations

import asyncio
import json
import time

import openai
import pytest

from tests.lb.loops.processes import MODEL
from tests.lb.sdk.conftest import KEY, LIMITED_KEY, Service

HELLO = [{"role": "user", "content": "hello"}]


def test_chat(service: Service) -> None:
    with service.client() as client:
        completion = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=8)
    assert completion.choices[0].message.content == "tok " * 8
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 8


def test_chat_streams_with_usage(service: Service) -> None:
    with service.client() as client:
        stream = client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=12, stream=True, stream_options={"include_usage": True}
        )  # fmt: skip
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "tok " * 12
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


def test_completions(service: Service) -> None:
    with service.client() as client:
        completion = client.completions.create(model=MODEL, prompt="once upon", max_tokens=5)
        streamed = list(client.completions.create(model=MODEL, prompt="once upon", max_tokens=5, stream=True))
    assert completion.choices[0].text == "tok " * 5
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == "tok " * 5


TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def test_tools(service: Service) -> None:
    with service.client() as client:
        completion = client.chat.completions.create(model=MODEL, messages=HELLO, tools=[TOOL])
    assert completion.choices[0].finish_reason == "tool_calls"
    assert completion.choices[0].message.tool_calls is not None
    [call] = completion.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"echo": "hello"}


def test_tools_stream(service: Service) -> None:
    with (
        service.client() as client,
        client.chat.completions.stream(model=MODEL, messages=HELLO, tools=[TOOL]) as stream,
    ):
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    assert final.choices[0].message.tool_calls is not None
    assert final.choices[0].message.tool_calls[0].function.name == "weather"


def test_embeddings(service: Service) -> None:
    """The SDK asks for base64 by itself and decodes it."""
    with service.client() as client:
        answer = client.embeddings.create(model=MODEL, input=["one", "two"])
        plain = client.embeddings.create(model=MODEL, input="one", encoding_format="float")
    assert len(answer.data) == 2
    assert all(isinstance(value, float) for value in answer.data[0].embedding)
    assert len(plain.data[0].embedding) == len(answer.data[0].embedding)


def test_models(service: Service) -> None:
    with service.client() as client:
        assert [model.id for model in client.models.list()] == [MODEL]


async def test_many_at_once(service: Service) -> None:
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0) as client:

        async def one(number: int) -> str:
            stream = await client.chat.completions.create(
                model=MODEL, messages=HELLO, max_tokens=10 + number, stream=True, extra_body={"ignore_eos": True}
            )  # fmt: skip
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

        texts = await asyncio.gather(*(one(number) for number in range(30)))
    assert texts == ["tok " * (10 + number) for number in range(30)]


# errors ---------------------------------------------------------------------------------------------------------------


def test_a_wrong_key_is_an_authentication_error(service: Service) -> None:
    with service.client(key="sk-wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO)
    assert caught.value.status_code == 401
    assert caught.value.code == "unauthorized"
    assert "sk-wrong" not in caught.value.message


def test_a_model_that_the_key_may_not_use_is_a_permission_error(service: Service) -> None:
    with service.client(key=LIMITED_KEY) as client, pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model=MODEL, messages=HELLO)


def test_an_unknown_model_is_not_found(service: Service) -> None:
    with service.client() as client, pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=HELLO)
    assert "no-such-model" in caught.value.message


def test_an_error_of_the_runtime_arrives_as_it_is(service: Service) -> None:
    with service.client() as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[])
    assert "messages must not be empty" in caught.value.message
    with service.client() as client, pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=-1)


def test_an_unknown_path_is_not_found(service: Service) -> None:
    with service.client() as client, pytest.raises(openai.NotFoundError):
        client.files.list()


def test_a_server_error_of_the_runtime_arrives_as_it_is(service: Service) -> None:
    service.fault("status", status=500, count=1)
    with service.client() as client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO)
    assert caught.value.status_code == 500


def test_a_refusal_tells_the_sdk_when_to_come_back_and_its_retry_succeeds(service: Service) -> None:
    service.fault("status", status=429, retry_after_s=1, count=1)
    with service.client(max_retries=3) as client:
        completion = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=3)
    assert completion.choices[0].message.content == "tok " * 3


# streams that end badly -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["reset_stream", "cut_stream", "truncate_stream", "silent_stream"])
def test_a_cut_stream_raises(service: Service, kind: str) -> None:
    service.fault(kind, tokens=5, count=1)
    received: list[str] = []

    def read() -> None:
        stream = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2000, stream=True)
        received.extend(chunk.choices[0].delta.content or "" for chunk in stream)

    with service.client() as client, pytest.raises(openai.APIError) as caught:
        read()
    assert "replica" in caught.value.message
    assert len("".join(received)) < 2000 * len("tok ")


def test_a_stream_that_the_client_closes_frees_the_runtime(service: Service) -> None:
    with service.client() as client:
        stream = client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=100_000, stream=True, extra_body={"ignore_eos": True}
        )  # fmt: skip
        next(iter(stream))
        assert service.view()["open_tickets"] == 1
        stream.close()
        service.until(lambda view: view["open_tickets"] == 0)


# timeouts -------------------------------------------------------------------------------------------------------------


def test_a_timeout_of_the_sdk_raises_and_frees_the_runtime(service: Service) -> None:
    service.fault("hang")
    with service.client(timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model=MODEL, messages=HELLO)
    service.until(lambda view: view["open_tickets"] == 0)


def test_a_runtime_that_hangs_is_a_server_error_after_our_own_timeout(service: Service) -> None:
    service.fault("stall")
    started = time.monotonic()
    with service.client(timeout=20) as client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO)
    assert caught.value.status_code == 504
    assert 2.5 < time.monotonic() - started < 8
