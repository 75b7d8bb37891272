"""`/generate`: SGLang's native API and TGI's share the path, and the body tells them apart.

SGLang: `text` or `input_ids`, `sampling_params`. TGI: `inputs`, `parameters`; `/generate_stream` and `/` are its own.
"""

from __future__ import annotations

from lb.request import RequestInfo, SurfaceName, Usage
from lb.surface import StreamEnd, StreamFormat
from lb.surfaces import failures, replies
from lb.surfaces.fields import NOTHING, FieldReader, Fields, Raw, first_byte, items, positive
from lb.surfaces.prompt import set_choices, set_model, set_prompt, set_session


class _Body(Fields):
    model: str | None = None
    text: Raw = NOTHING
    input_ids: Raw = NOTHING
    sampling_params: Raw = NOTHING
    lora_path: str | None = None
    inputs: Raw = NOTHING
    parameters: Raw = NOTHING
    stream: bool | None = None
    session_id: str | None = None


class _Parameters(Fields):
    max_new_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    adapter_id: str | None = None


class Generate:
    """POST /generate, /generate_stream and /: whichever of both APIs the body is written in.

    `info.surface` is set to the API that was found, so that errors and metrics speak it. `native` is the API that an
    unclear body and an error belong to.
    """

    stream_format = StreamFormat.SSE

    def __init__(self, native: SurfaceName) -> None:
        self._native = native
        self._reader = FieldReader(_Body)
        self._parameters = FieldReader(_Parameters)

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        found = self._reader.read(body)
        if found is None:
            return
        set_model(info, found.model)
        if found.stream is not None:
            info.stream = found.stream
        set_session(info, found.session_id)
        tgi = bool(found.inputs) and not found.text and not found.input_ids
        sglang = bool(found.text or found.input_ids)
        info.surface = SurfaceName.TGI if tgi else (SurfaceName.SGLANG if sglang else self._native)
        raw = found.parameters if tgi else found.sampling_params
        if not tgi and first_byte(raw) == b"[":
            raw = (items(raw) or [NOTHING])[0]
        limits = self._parameters.read(raw) if raw else None
        if limits is not None:
            info.max_tokens = positive(limits.max_new_tokens)
            set_choices(info, max(limits.n or 1, limits.best_of or 1))
            info.adapter = limits.adapter_id or info.adapter
        info.adapter = found.lora_path or info.adapter
        set_prompt(info, found.inputs or found.input_ids or found.text)

    def read_usage(self, tail: bytes) -> Usage | None:
        """SGLang counts in each `meta_info`, TGI in `details` at the end, if asked for them."""
        output = replies.last_number(tail, b'"completion_tokens"')
        if output is not None:
            prompt = replies.last_number(tail, b'"prompt_tokens"')
            return Usage(prompt, output, replies.last_number(tail, b'"cached_tokens"'))
        output = replies.last_number(tail, b'"generated_tokens"')
        return None if output is None else Usage(output_tokens=output)

    def stream_end(self, tail: bytes) -> StreamEnd:
        """TGI's last event is the one whose `generated_text` is not null; SGLang's has a finish reason."""
        at = max(tail.rfind(b'"generated_text":"'), tail.rfind(b'"generated_text": "'))
        return StreamEnd.COMPLETE if at >= 0 else replies.finish_end(tail)

    def error_body(self, status: int, reason: str, message: str) -> bytes:
        shape = failures.tgi_body if self._native is SurfaceName.TGI else failures.openai_body
        return shape(status, reason, message)

    def error_event(self, reason: str, message: str) -> bytes:
        shape = failures.tgi_event if self._native is SurfaceName.TGI else failures.openai_event
        return shape(reason, message)
