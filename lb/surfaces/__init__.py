"""The APIs that Tidegate understands: one object each, shared by all requests."""

from __future__ import annotations

from lb.request import SurfaceName
from lb.settings import CustomSurface
from lb.surface import Surface
from lb.surfaces.anthropic import Messages
from lb.surfaces.audio import Audio
from lb.surfaces.custom import Custom
from lb.surfaces.generate import Generate
from lb.surfaces.llamacpp import LlamaCpp
from lb.surfaces.ollama import OllamaChat, OllamaEmbed, OllamaGenerate
from lb.surfaces.opaque import Opaque
from lb.surfaces.openai import Chat, Completions
from lb.surfaces.responses import Responses
from lb.surfaces.scoring import Embeddings, Pairs
from lb.surfaces.triton import TritonGenerate, TritonInfer

_pairs = Pairs()
_opaque = Opaque()

SURFACES: dict[SurfaceName, Surface] = {
    SurfaceName.CHAT: Chat(),
    SurfaceName.COMPLETIONS: Completions(),
    SurfaceName.EMBEDDINGS: Embeddings(),
    SurfaceName.RESPONSES: Responses(),
    SurfaceName.MESSAGES: Messages(),
    SurfaceName.RERANK: _pairs,
    SurfaceName.SCORE: _pairs,
    SurfaceName.AUDIO: Audio(),
    SurfaceName.SGLANG: Generate(SurfaceName.SGLANG),
    SurfaceName.TGI: Generate(SurfaceName.TGI),
    SurfaceName.TRITON_GENERATE: TritonGenerate(),
    SurfaceName.TRITON_INFER: TritonInfer(),
    SurfaceName.LLAMACPP: LlamaCpp(),
    SurfaceName.OLLAMA_GENERATE: OllamaGenerate(),
    SurfaceName.OLLAMA_CHAT: OllamaChat(),
    SurfaceName.OLLAMA_EMBED: OllamaEmbed(),
    SurfaceName.CUSTOM: Custom(CustomSurface(path="/")),
    SurfaceName.WEBSOCKET: _opaque,
    SurfaceName.OTHER: _opaque,
}
"""Every surface by its name. A custom path of the policy has a reader of its own: `lb.paths.surface_of`."""
