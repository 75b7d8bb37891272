"""What the balancer needs to know of one request. Filled by a surface parser, read by the core."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class SurfaceName(StrEnum):
    """The API that a request speaks; decides how its body and reply are read."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    RERANK = "rerank"
    SCORE = "score"
    AUDIO = "audio"
    SGLANG = "sglang"
    TGI = "tgi"
    TRITON_GENERATE = "triton_generate"
    TRITON_INFER = "triton_infer"
    LLAMACPP = "llamacpp"
    OLLAMA_GENERATE = "ollama_generate"
    OLLAMA_CHAT = "ollama_chat"
    OLLAMA_EMBED = "ollama_embed"
    CUSTOM = "custom"
    WEBSOCKET = "websocket"
    OTHER = "other"


@dataclass(slots=True)
class RequestInfo:
    """One request. Not frozen, as building a frozen record costs a microsecond on the hot path; nobody but
    the balancer writes to it after `Balancer.offer`."""

    id: str
    surface: SurfaceName = SurfaceName.OTHER
    model: str | None = None
    tenant: str = "default"
    """Who asks: the name of the API key, or `default`."""
    body_bytes: int = 0
    prompt_bytes: int = 0
    """UTF-8 bytes of text that the runtime will tokenise, 0 if unknown."""
    prompt_wide_ratio: float = 0.0
    """Share of prompt bytes outside ASCII: scripts differ in bytes per token."""
    prompt_tokens: int | None = None
    """Exact count where the body carries token ids; None: estimate from bytes."""
    max_tokens: int | None = None
    """Output limit per choice that the client asked for; None: the runtime's own."""
    choices: int = 1
    """`n` or `best_of`: sequences generated from the prompt."""
    stream: bool = False
    priority: int = 0
    """0 is normal, lower is more urgent (the sign of vLLM's field of that name)."""
    deadline_at: float | None = None
    """Monotonic instant after which the answer is of no use."""
    session: int | None = None
    """Hash of the session key, or None."""
    prefix: tuple[int, ...] = ()
    """Chained hashes of the prompt's leading blocks of `PREFIX_BLOCK_BYTES`; equal leading entries: equal text. Empty
    again once the request has ended."""
    adapter: str | None = None
    """LoRA adapter named by the request, if the surface says so apart from the model."""


@dataclass(slots=True)
class Usage:
    """Token counts that a runtime returned. None: not said. Not frozen, for the same reason as RequestInfo."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


PREFIX_BLOCK_BYTES: Final = 2048
"""About 512 tokens of English, the block size of the public Mooncake traces: small enough to tell conversations
apart, large enough that a 400 kB prompt is 200 hashes."""
