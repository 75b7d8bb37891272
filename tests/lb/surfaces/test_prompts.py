"""Weight and prefix of prompts."""

import base64
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.request import PREFIX_BLOCK_BYTES, RequestInfo, SurfaceName
from lb.surfaces import SURFACES
from lb.surfaces.prompt import BLOB_TEXT_BYTES, MODEL_NAME_CHARS


def chat(messages: object, model: str = "m", escape: bool = False, **more: object) -> RequestInfo:
    info = RequestInfo("r", surface=SurfaceName.CHAT)
    body = json.dumps({"model": model, "messages": messages, **more}, ensure_ascii=escape).encode()
    SURFACES[SurfaceName.CHAT].read_request(body, info)
    return info


def turn(text: str, role: str = "user") -> dict[str, object]:
    return {"role": role, "content": text}


def words(count: int, seed: int = 1) -> str:
    choose = random.Random(seed)
    return " ".join("".join(choose.choice("abcdefgh") for _ in range(choose.randint(2, 9))) for _ in range(count))


def shared(one: RequestInfo, other: RequestInfo) -> int:
    """Leading blocks that two prompts have in common."""
    count = 0
    for left, right in zip(one.prefix, other.prefix, strict=False):
        if left != right:
            break
        count += 1
    return count


def test_a_conversation_that_goes_on_keeps_its_prefix() -> None:
    before = [turn(words(1500)), turn(words(300, 2), "assistant")]
    first, second = chat(before), chat([*before, turn("and then?")])
    blocks = (len(json.dumps(before)) - 1) // PREFIX_BLOCK_BYTES
    assert len(first.prefix) == blocks > 2
    assert second.prefix[:blocks] == first.prefix


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3 * PREFIX_BLOCK_BYTES), st.text(max_size=40), st.integers(1, 4))
def test_whatever_the_lengths_the_prefix_of_the_shorter_is_kept(length: int, added: str, turns: int) -> None:
    before = [turn("x" * length, "user")] * turns
    assert shared(chat(before), chat([*before, turn(added)])) == len(chat(before).prefix)


def test_prompts_that_differ_share_only_what_is_equal() -> None:
    text = words(3000)
    cut = PREFIX_BLOCK_BYTES * 3
    one, other = chat([turn(text)]), chat([turn(text[:cut] + "!" + text[cut:])])
    assert 2 <= shared(one, other) <= 3
    assert shared(chat([turn("!" + text)]), one) == 0


def test_models_and_tools_share_no_prefix() -> None:
    messages = [turn(words(2000))]
    assert shared(chat(messages), chat(messages, model="other")) == 0
    tools = [{"type": "function", "function": {"name": "f", "description": words(900)}}]
    assert shared(chat(messages), chat(messages, tools=tools)) == 0
    assert shared(chat(messages, tools=tools), chat([turn("another question")], tools=tools)) >= 1


def test_short_prompts_have_none() -> None:
    assert chat([turn("hello")]).prefix == ()


def test_wide_text_is_measured() -> None:
    assert chat([turn(words(200))]).prompt_wide_ratio == 0
    assert chat([turn("\u4f60\u597d\u4e16\u754c" * 300)]).prompt_wide_ratio > 0.95
    assert 0.3 < chat([turn("\u4f60\u597d\u4e16 hello wo" * 300)]).prompt_wide_ratio < 0.7
    assert 0.5 < chat([turn("\u043f\u0440\u0438\u0432\u0435\u0442 ab " * 3000)]).prompt_wide_ratio < 0.95


@pytest.mark.parametrize("repeat", [20, 300, 5000])
def test_escaped_text_weighs_what_it_does_unescaped(repeat: int) -> None:
    messages = [turn("\u4f60\u597d\u4e16\u754c, hello " * repeat)]
    plain, escaped = chat(messages), chat(messages, escape=True)
    assert escaped.prompt_bytes == pytest.approx(plain.prompt_bytes, rel=0.1)
    assert escaped.prompt_wide_ratio == pytest.approx(plain.prompt_wide_ratio, abs=0.1)


def image(size: int, seed: int = 1) -> str:
    return base64.b64encode(random.Random(seed).randbytes(size)).decode()


@pytest.mark.parametrize(
    "part",
    [
        lambda data: {"type": "image_url", "image_url": {"url": "data:image/png;base64," + data}},
        lambda data: {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
        lambda data: {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
    ],
)
@pytest.mark.parametrize("escaped_slashes", [False, True])
def test_images_and_sounds_are_no_text(part: object, escaped_slashes: bool) -> None:
    data = image(200_000)
    content = [{"type": "text", "text": "what is this? " * 20}, part(data), part(image(90_000, 2))]  # type: ignore[operator]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]})
    if escaped_slashes:
        body = body.replace("/", "\\/")
    info = RequestInfo("r", surface=SurfaceName.CHAT)
    SURFACES[SurfaceName.CHAT].read_request(body.encode(), info)
    assert 2 * BLOB_TEXT_BYTES < info.prompt_bytes < 2 * BLOB_TEXT_BYTES + 1200


def test_equal_images_are_equal_prefixes_and_others_not() -> None:
    def ask(data: str, after: str) -> RequestInfo:
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + data}}
        return chat([{"role": "user", "content": [picture, {"type": "text", "text": after}]}])

    long = words(1500)
    assert shared(ask(image(50_000), long), ask(image(50_000), long + " more")) >= 2
    assert shared(ask(image(50_000), long), ask(image(50_000, 3), long)) == 0


def test_text_without_spaces_is_still_text() -> None:
    for text in ("\u4f60\u597d" * 9000, "[1,2,3,4,5,6,7,8,9,10]" * 3000, "word_" * 300 + " and " + words(4000)):
        assert chat([turn(text)]).prompt_bytes > 0.9 * len(text.encode())
        assert chat([turn(text)], escape=True).prompt_bytes > 0.8 * len(text.encode())
    pasted = "decode this for me please: " + image(30_000)
    assert chat([turn(pasted)]).prompt_bytes > 30_000, "base64 inside a text is tokenised as text"


def test_long_model_names_are_cut() -> None:
    assert len(chat([], model="x" * 100_000).model or "") == MODEL_NAME_CHARS


def test_token_ids_have_a_prefix_too() -> None:
    def ids(count: int) -> RequestInfo:
        info = RequestInfo("r", model="m")
        body = json.dumps({"model": "m", "prompt": list(range(1000, 1000 + count))}).encode()
        SURFACES[SurfaceName.COMPLETIONS].read_request(body, info)
        return info

    assert ids(2000).prompt_tokens == 2000
    assert shared(ids(2000), ids(2100)) == len(ids(2000).prefix) > 3
