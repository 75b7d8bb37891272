"""llama.cpp's native completion and infill."""

from __future__ import annotations

from lb.request import RequestInfo, Usage
from lb.surface import StreamEnd, StreamFormat
from lb.surfaces import failures, replies
from lb.surfaces.fields import NOTHING, FieldReader, Fields, Raw, positive
from lb.surfaces.prompt import set_model, set_prompt, set_session


class _Body(Fields):
    model: str | None = None
    prompt: Raw = NOTHING
    input_prefix: Raw = NOTHING
    input_suffix: Raw = NOTHING
    input_extra: Raw = NOTHING
    n_predict: int | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    session_id: str | None = None


class LlamaCpp:
    """POST /completion, /completions, /infill. `n_predict` of -1 is no limit."""

    stream_format = StreamFormat.SSE
    error_body = staticmethod(failures.llamacpp_body)
    error_event = staticmethod(failures.llamacpp_event)

    def __init__(self) -> None:
        self._reader = FieldReader(_Body)

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        found = self._reader.read(body)
        if found is None:
            return
        set_model(info, found.model)
        info.max_tokens = positive(found.n_predict if found.n_predict is not None else found.max_tokens)
        info.stream = found.stream is True
        set_session(info, found.session_id)
        set_prompt(info, found.prompt or NOTHING, found.input_extra, found.input_prefix, found.input_suffix)

    def read_usage(self, tail: bytes) -> Usage | None:
        """`timings` counts cached and computed prompt tokens apart."""
        at = tail.rfind(b'"timings"')
        if at < 0:
            return None
        computed = replies.number(tail, b'"prompt_n"', at)
        cached = replies.number(tail, b'"cache_n"', at)
        output = replies.number(tail, b'"predicted_n"', at)
        if computed is None and output is None:
            return None
        prompt = None if computed is None else computed + (cached or 0)
        return Usage(prompt_tokens=prompt, output_tokens=output, cached_tokens=cached)

    def stream_end(self, tail: bytes) -> StreamEnd:
        """The last event says `"stop":true` and ends with `timings`; it repeats the prompt, so its beginning may be out
        of reach."""
        if b'"stop":true' in tail or b'"stop_type":"' in tail:
            return StreamEnd.COMPLETE
        return StreamEnd.TRUNCATED
