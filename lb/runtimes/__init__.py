"""The engines that are known, in the order in which they are tried at detection."""

from __future__ import annotations

from lb.runtime import RuntimeSpec
from lb.runtimes.generic import GENERIC
from lb.runtimes.llamacpp import LLAMACPP
from lb.runtimes.lmdeploy import LMDEPLOY
from lb.runtimes.mlserver import MLSERVER
from lb.runtimes.ollama import OLLAMA
from lb.runtimes.sglang import SGLANG
from lb.runtimes.tgi import TGI
from lb.runtimes.triton import TRITON
from lb.runtimes.trtllm import TRTLLM
from lb.runtimes.vllm import VLLM

RUNTIMES: dict[str, RuntimeSpec] = {
    "vllm": VLLM,
    "sglang": SGLANG,
    "llamacpp": LLAMACPP,
    "trtllm": TRTLLM,
    "lmdeploy": LMDEPLOY,
    "ollama": OLLAMA,
    "triton": TRITON,
    "mlserver": MLSERVER,
    "tgi": TGI,
    "generic": GENERIC,
}

DETECTION_PATHS: tuple[str, ...] = (
    "/v1/models",
    "/v2",
    "/info",
    "/",
    "/load",
    "/get_model_info",
    "/prometheus/metrics",
    "/metrics",
)
"""What is asked to find out which engine answers, one after another until one is recognised. Cheap and telling first;
`/metrics` last and only when the others were open, as TensorRT-LLM empties it by reading."""

ANY_MODEL = frozenset(name for name, spec in RUNTIMES.items() if spec.any_model)
"""Engines that hold one model and answer to any name of it."""
ABANDONS: dict[str, bool] = {name: spec.abandons_unary for name, spec in RUNTIMES.items()}
"""By engine: whether it goes on with a unary request whose client has left."""
