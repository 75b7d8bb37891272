"""Triton and KServe v2: `generate` (text in, text out) and `infer` (tensors). The model is in the path."""

from __future__ import annotations

from lb.request import RequestInfo, Usage
from lb.surface import StreamEnd, StreamFormat
from lb.surfaces import failures, replies
from lb.surfaces.fields import NOTHING, FieldReader, Fields, Raw, items, positive
from lb.surfaces.prompt import set_prompt, set_text


class _GenerateBody(Fields):
    text_input: Raw = NOTHING
    inputs: Raw = NOTHING
    max_tokens: int | None = None
    parameters: Raw = NOTHING
    stream: bool | None = None


class _Parameters(Fields):
    max_tokens: int | None = None


class _InferBody(Fields):
    inputs: Raw = NOTHING


class _Tensor(Fields):
    name: str = ""
    datatype: str = ""
    data: Raw = NOTHING


class _Failure:
    """Triton's one shape for errors. It counts no tokens, and its streams just end."""

    stream_format = StreamFormat.SSE
    error_body = staticmethod(failures.plain_body)
    error_event = staticmethod(failures.plain_event)

    def read_usage(self, tail: bytes) -> Usage | None:
        """Models may pass on OpenAI's `usage` (vLLM behind Triton, KServe); Triton itself counts nothing."""
        return replies.openai_usage(tail)

    def stream_end(self, tail: bytes) -> StreamEnd:
        last = tail[tail.rfind(b"data:") :] if b"data:" in tail else b""
        return StreamEnd.TRUNCATED if last[5:20].lstrip().startswith(b'{"error":') else StreamEnd.UNKNOWN


class TritonGenerate(_Failure):
    """POST /v2/models/{m}/generate and /generate_stream, and MLServer's of the same name, which take tensors."""

    def __init__(self) -> None:
        self._reader = FieldReader(_GenerateBody)
        self._parameters = FieldReader(_Parameters)
        self._infer = TritonInfer()

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        found = self._reader.read(body)
        if found is None:
            return
        if found.inputs and not found.text_input:
            self._infer.read_tensors(found.inputs, info)
            info.max_tokens = info.max_tokens or None
            return
        limit = found.max_tokens
        if limit is None and found.parameters:
            parameters = self._parameters.read(found.parameters)
            limit = parameters.max_tokens if parameters is not None else None
        info.max_tokens = positive(limit)
        if found.stream is not None:
            info.stream = info.stream or found.stream
        set_prompt(info, found.text_input)


class TritonInfer(_Failure):
    """POST /v2/models/{m}/infer and /infer_stream. A binary tensor body (JSON followed by bytes) is not read."""

    def __init__(self) -> None:
        self._reader = FieldReader(_InferBody)
        self._tensor = FieldReader(_Tensor)

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        found = self._reader.read(body)
        if found is None or not found.inputs:
            info.max_tokens = 0
            return
        self.read_tensors(found.inputs, info)

    def read_tensors(self, inputs: Raw, info: RequestInfo) -> None:
        """Text tensors are prompts; one named `max_tokens` is the limit. Without it nothing is generated."""
        info.max_tokens = 0
        texts: list[Raw] = []
        for raw in items(inputs)[:64]:
            tensor = self._tensor.read(raw)
            if tensor is None:
                continue
            if tensor.datatype == "BYTES":
                texts.append(tensor.data)
            elif tensor.name in ("max_tokens", "request_output_len"):
                digits = bytes(tensor.data).strip(b"[] \r\n\t")
                info.max_tokens = positive(int(digits)) if digits.isdigit() and len(digits) < 12 else None
        if texts:
            set_text(info, *texts)
