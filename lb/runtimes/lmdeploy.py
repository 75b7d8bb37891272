"""LMDeploy. Metrics need `--enable-metrics`; requests may wait before the engine as well as in it."""

from __future__ import annotations

from lb.runtime import Combine, Listing, LoadSource, Mark, Metric, Readiness, RuntimeSpec, Series

LMDEPLOY = RuntimeSpec(
    name="lmdeploy",
    title="LMDeploy",
    marks=(
        Mark("/v1/models", at=("data", 0, "owned_by"), starts="lmdeploy"),
        Mark("/metrics", contains=b"lmdeploy:num_requests_running"),
    ),
    readiness=Readiness("/health"),
    listing=Listing("/v1/models", items=("data",), parent="parent"),
    loads=(
        LoadSource(
            "/metrics",
            metrics=(
                Metric("running", (Series("lmdeploy:num_requests_running"),), required=True),
                # Waiting for a request handle (API side), and waiting in the engine.
                Metric(
                    "waiting",
                    (Series("lmdeploy:num_requests_waiting"), Series("lmdeploy:num_api_requests_waiting")),
                    every=True,
                    required=True,
                ),
                Metric("kv_usage_ratio", (Series("lmdeploy:gpu_cache_usage_perc"),), combine=Combine.MEAN),
                Metric("prompt_tokens_total", (Series("lmdeploy:prompt_tokens_total"),)),
                Metric("output_tokens_total", (Series("lmdeploy:generation_tokens_total"),)),
                Metric("prefix_hit_ratio", (Series("lmdeploy:prefix_cache_hit_rate"),), combine=Combine.MEAN),
            ),
        ),
    ),
    unsaid=frozenset({"waiting_tokens", "max_running", "kv_capacity_tokens"}),
    idle_close_s=5.0,  # uvicorn's default
    source="InternLM/lmdeploy: lmdeploy/metrics/loggers.py, lmdeploy/serve/openai/protocol.py",
)
