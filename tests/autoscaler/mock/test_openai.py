"""The mock as the unmodified OpenAI SDK sees it."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from autoscaler.sim.replica_model import ReplicaModel

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]


def sdk(port: int) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)


async def test_a_unary_chat_has_the_asked_length_and_usage(start: Any) -> None:
    wire = await start()
    async with sdk(wire.port) as client:
        answer = await client.chat.completions.create(
            model="mock-model", messages=HELLO, max_tokens=7, extra_body={"ignore_eos": True}
        )
    assert answer.choices[0].message.content == "tok " * 7
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len("hello there") // 4, 7)


async def test_the_true_length_is_the_servers_secret(start: Any) -> None:
    wire = await start()
    async with sdk(wire.port) as client:
        by_header = await client.chat.completions.create(
            model="mock-model", messages=HELLO, max_tokens=100, extra_headers={"x-mock-output-tokens": "9"}
        )
        by_field = await client.completions.create(
            model="mock-model", prompt="x" * 400, max_tokens=100, extra_body={"mock_output_tokens": 3}
        )
        by_mark = await client.chat.completions.create(
            model="mock-model",
            messages=[{"role": "user", "content": "hello [mock_output_tokens=200]"}],
            max_completion_tokens=5,
        )
    assert by_header.usage is not None
    assert by_field.usage is not None
    assert by_mark.usage is not None
    assert (by_header.usage.completion_tokens, by_header.choices[0].finish_reason) == (9, "stop")
    assert (by_field.usage.prompt_tokens, by_field.usage.completion_tokens) == (100, 3)
    assert (by_mark.usage.completion_tokens, by_mark.choices[0].finish_reason) == (5, "length")


async def test_a_stream_brings_all_tokens_a_finish_reason_and_usage(start: Any) -> None:
    wire = await start()
    text, reasons, used = "", [], None
    async with sdk(wire.port) as client:
        stream = await client.chat.completions.create(
            model="mock-model", messages=HELLO, stream=True, stream_options={"include_usage": True},
            extra_headers={"x-mock-output-tokens": "40"},
        )  # fmt: skip
        async for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reasons.append(choice.finish_reason)
            used = chunk.usage or used
    assert text == "tok " * 40
    assert reasons[-1] == "stop"
    assert set(reasons[:-1]) == {None}
    assert used is not None
    assert used.completion_tokens == 40


async def test_a_stream_of_completions_and_of_several_choices(start: Any) -> None:
    wire = await start()
    texts = {0: "", 1: ""}
    async with sdk(wire.port) as client:
        stream = await client.completions.create(model="mock-model", prompt="p", n=2, max_tokens=5, stream=True)
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.text
    assert texts == {0: "tok " * 5, 1: "tok " * 5}


@pytest.mark.parametrize("streams", [False, True])
async def test_tools_are_called_with_what_was_said(start: Any, streams: bool) -> None:
    wire = await start()
    tools: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    async with sdk(wire.port) as client:
        if streams:
            names, arguments = "", ""
            async for chunk in await client.chat.completions.create(
                model="mock-model", messages=HELLO, tools=tools, stream=True
            ):
                for call in chunk.choices[0].delta.tool_calls or []:
                    assert call.function is not None
                    names += call.function.name or ""
                    arguments += call.function.arguments or ""
        else:
            answer = await client.chat.completions.create(model="mock-model", messages=HELLO, tools=tools)
            assert answer.choices[0].finish_reason == "tool_calls"
            assert answer.choices[0].message.tool_calls is not None
            function: Any = answer.choices[0].message.tool_calls[0]
            names, arguments = function.function.name, function.function.arguments
    assert names == "weather"
    assert json.loads(arguments) == {"echo": "hello there"}


async def test_embeddings_in_the_encoding_that_the_sdk_asks_for(start: Any) -> None:
    wire = await start()
    async with sdk(wire.port) as client:
        answer = await client.embeddings.create(model="mock-model", input=["one", "another one"])
        plain = await client.embeddings.create(model="mock-model", input=["one"], encoding_format="float")
    assert [len(item.embedding) for item in answer.data] == [8, 8]
    assert answer.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert answer.data[0].embedding != answer.data[1].embedding


async def test_errors_are_those_of_a_runtime(start: Any) -> None:
    wire = await start(replica=ReplicaModel(kv_tokens=1000))
    async with sdk(wire.port) as client:
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await client.chat.completions.create(model="nope", messages=HELLO)
        with pytest.raises(openai.BadRequestError, match="KV memory"):
            await client.chat.completions.create(model="mock-model", messages=HELLO, max_tokens=2000,
                                                 extra_body={"ignore_eos": True})  # fmt: skip
        with pytest.raises(openai.BadRequestError, match="max_tokens"):
            await client.chat.completions.create(model="mock-model", messages=HELLO, max_tokens=0)
        assert (await client.models.list()).data[0].id == "mock-model"
    assert (await wire.exchange(b"POST /v1/completions HTTP/1.1\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{]"))[
        :12
    ] == b"HTTP/1.1 400"


async def test_metrics_have_the_names_of_vllm(start: Any) -> None:
    wire = await start(replica=ReplicaModel(prefix_cache=True))
    async with sdk(wire.port) as client:
        for _ in range(2):
            await client.chat.completions.create(
                model="mock-model", messages=[{"role": "user", "content": "x" * 8192}], max_tokens=5
            )
    samples = {
        sample.name: sample
        for family in text_string_to_metric_families((await wire.get("/metrics"))[1].decode())
        for sample in family.samples
        if sample.labels.get("le") in (None, "+Inf")
    }
    assert samples["vllm:num_requests_running"].value == 0
    assert samples["vllm:num_requests_waiting"].value == 0
    assert samples["vllm:kv_cache_usage_perc"].value == 0
    assert samples["vllm:prompt_tokens_total"].value == 4096
    assert samples["vllm:generation_tokens_total"].value == 10
    assert samples["vllm:prefix_cache_queries_total"].value == 4096
    assert samples["vllm:prefix_cache_hits_total"].value == 1536
    assert samples["vllm:time_to_first_token_seconds_count"].value == 2
    assert samples["vllm:inter_token_latency_seconds_bucket"].value == 8
    info = samples["vllm:cache_config_info"].labels
    assert int(info["num_gpu_blocks"]) * int(info["block_size"]) == 262_144
