"""Text Generation Inference, in maintenance since 2025. No KV usage; 429 when its semaphore is full."""

from __future__ import annotations

from lb.runtime import Facts, Listing, LoadSource, Mark, Metric, Readiness, RuntimeSpec, Series

TGI = RuntimeSpec(
    name="tgi",
    title="Text Generation Inference",
    marks=(
        Mark("/info", at=("router",), starts="text-generation-router"),
        Mark("/metrics", contains=b"tgi_batch_current_size"),
    ),
    readiness=Readiness("/health"),
    listing=Listing("/v1/models", items=("data",)),
    loads=(
        LoadSource(
            "/metrics",
            metrics=(
                Metric("running", (Series("tgi_batch_current_size"),), required=True),
                Metric("waiting", (Series("tgi_queue_size"),), required=True),
                Metric("prompt_tokens_total", (Series("tgi_request_input_length_sum"),)),
                Metric("output_tokens_total", (Series("tgi_request_generated_tokens_sum"),)),
            ),
        ),
    ),
    facts=(
        # `max_concurrent_requests` is the semaphore before the queue, not the batch.
        Facts("/info", {"kv_capacity_tokens": ("max_batch_total_tokens",), "max_running": ("max_batch_size",)}),
    ),
    any_model=True,
    unsaid=frozenset({"kv_usage_ratio", "waiting_tokens", "prefix_hit_ratio"}),
    source="huggingface/text-generation-inference: docs/source/reference/metrics.md, router/src/lib.rs (Info)",
)
