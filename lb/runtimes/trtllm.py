"""TensorRT-LLM's own server (trtllm-serve). `/metrics` hands each number to one reader only and is left alone."""

from __future__ import annotations

from lb.runtime import Combine, Listing, LoadSource, Mark, Metric, Readiness, RuntimeSpec, Series

TRTLLM = RuntimeSpec(
    name="trtllm",
    title="TensorRT-LLM",
    marks=(
        Mark("/v1/models", at=("data", 0, "owned_by"), starts="tensorrt_llm"),
        Mark("/prometheus/metrics", contains=b"trtllm_"),
    ),
    readiness=Readiness("/health"),
    listing=Listing("/v1/models", items=("data",)),
    loads=(
        LoadSource(
            "/prometheus/metrics",
            metrics=(
                Metric("running", (Series("trtllm_num_requests_running"),), required=True),
                Metric("waiting", (Series("trtllm_num_requests_waiting"),), required=True),
                Metric("kv_usage_ratio", (Series("trtllm_kv_cache_utilization"),), combine=Combine.MEAN, required=True),
                Metric(
                    "kv_capacity_tokens",
                    (Series("trtllm_kv_cache_max_blocks"),),
                    times=Series("trtllm_kv_cache_tokens_per_block"),
                ),
                Metric(
                    "max_running", (Series("trtllm_max_num_active_requests"), Series("trtllm_max_batch_size_runtime"))
                ),
                Metric("prompt_tokens_total", (Series("trtllm_prompt_tokens_total"),)),
                Metric("output_tokens_total", (Series("trtllm_generation_tokens_total"),)),
                Metric("prefix_hit_ratio", (Series("trtllm_kv_cache_hit_rate"),), combine=Combine.MEAN),
            ),
        ),
    ),
    unsaid=frozenset({"waiting_tokens"}),
    idle_close_s=5.0,  # uvicorn's default
    never_poll=frozenset({"/metrics", "/health_generate", "/perf_metrics"}),
    source="NVIDIA/TensorRT-LLM: tensorrt_llm/metrics/collector.py, tensorrt_llm/serve/openai_protocol.py",
)
