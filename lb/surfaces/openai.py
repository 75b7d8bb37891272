"""OpenAI chat completions and completions, as vLLM, SGLang, llama.cpp, Ollama, TensorRT-LLM and LMDeploy serve them."""

from __future__ import annotations

from lb.request import RequestInfo
from lb.surface import StreamFormat
from lb.surfaces import failures, replies
from lb.surfaces.fields import NOTHING, FieldReader, Fields, Raw, positive
from lb.surfaces.prompt import set_choices, set_model, set_prompt, set_session, set_text


class _ChatBody(Fields):
    model: str | None = None
    messages: Raw = NOTHING
    tools: Raw = NOTHING
    functions: Raw = NOTHING
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    prompt_cache_key: str | None = None
    session_id: str | None = None
    user: str | None = None


class _CompletionBody(Fields):
    model: str | None = None
    prompt: Raw = NOTHING
    suffix: Raw = NOTHING
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    stream: bool | None = None
    prompt_cache_key: str | None = None
    session_id: str | None = None
    user: str | None = None


class Chat:
    """POST /v1/chat/completions."""

    stream_format = StreamFormat.SSE
    read_usage = staticmethod(replies.openai_usage)
    stream_end = staticmethod(replies.finish_end)
    error_body = staticmethod(failures.openai_body)
    error_event = staticmethod(failures.openai_event)

    def __init__(self) -> None:
        self._reader = FieldReader(_ChatBody, texts=True)

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        found = self._reader.read(body)
        if found is None:
            return
        set_model(info, found.model)
        limit = found.max_completion_tokens if found.max_completion_tokens is not None else found.max_tokens
        info.max_tokens = positive(limit)
        set_choices(info, found.n)
        info.stream = found.stream is True
        set_session(info, found.prompt_cache_key, found.session_id, found.user)
        set_text(info, found.tools, found.functions, found.messages)


class Completions:
    """POST /v1/completions."""

    stream_format = StreamFormat.SSE
    read_usage = staticmethod(replies.openai_usage)
    stream_end = staticmethod(replies.finish_end)
    error_body = staticmethod(failures.openai_body)
    error_event = staticmethod(failures.openai_event)

    def __init__(self) -> None:
        self._reader = FieldReader(_CompletionBody)

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        found = self._reader.read(body)
        if found is None:
            return
        set_model(info, found.model)
        info.max_tokens = positive(found.max_tokens)
        set_choices(info, max(found.n or 1, found.best_of or 1))
        info.stream = found.stream is True
        set_session(info, found.prompt_cache_key, found.session_id, found.user)
        set_prompt(info, found.prompt, found.suffix)
