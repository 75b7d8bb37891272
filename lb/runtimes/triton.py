"""Triton Inference Server, with or without the TensorRT-LLM backend. Metrics on a port of their own (8002)."""

from __future__ import annotations

from lb.runtime import Combine, Listing, LoadSource, Mark, Metric, Readiness, RuntimeSpec, Series, Sign


def _trtllm(kind: str) -> Series:
    return Series("nv_trt_llm_request_metrics", (("request_type", kind),))


def _blocks(kind: str) -> Series:
    return Series("nv_trt_llm_kv_cache_block_metrics", (("kv_cache_block_type", kind),))


TRITON = RuntimeSpec(
    name="triton",
    title="Triton",
    marks=(Mark("/v2", at=("name",), starts="triton"), Mark("/metrics", contains=b"nv_inference_request_success")),
    # /v2/health/ready is 200 before any model is there and 400 for moments while one of them loads.
    readiness=Readiness("/v2/models/{model}/ready", loading=frozenset({400}), fallback="/v2/health/ready"),
    listing=Listing("/v2/repository/index", items=(), name="name", method="POST"),
    loads=(
        LoadSource(
            "/metrics",
            port=8002,
            metrics=(
                # The backend takes every request at once and queues it itself, so both queues are added.
                Metric(
                    "waiting",
                    (Series("nv_inference_pending_request_count"), _trtllm("waiting")),
                    every=True,
                    required=True,
                ),
                Metric("running", (_trtllm("scheduled"),)),
                Metric("max_running", (_trtllm("max"),)),
                Metric("kv_usage_ratio", (_blocks("fraction"),), combine=Combine.MEAN),
                Metric("kv_capacity_tokens", (_blocks("max"),), times=_blocks("tokens_per")),
            ),
        ),
    ),
    unsaid=frozenset({"waiting_tokens", "prompt_tokens_total", "output_tokens_total", "prefix_hit_ratio"}),
    abandons_unary=True,
    usage_in_stream=False,
    client_faults=(Sign(500, b"failed to parse the request JSON buffer"),),
    source="recorded from Triton 2.51, native and through PyTriton; triton-inference-server/tensorrtllm_backend",
)
