"""vLLM (V1 engine). Everything is told by its metrics; `/load` serves where they are turned off."""

from __future__ import annotations

from collections.abc import Mapping

from lb.runtime import Combine, Listing, LoadSource, Mark, Metric, Readiness, RuntimeSpec, Series, Sign


def _server_load(document: object) -> Mapping[str, object] | None:
    """`{"server_load": n}`: requests inside the server, running and waiting together. Always 0 without
    `--enable-server-load-tracking`, so it is believed only as far as it is above 0."""
    if not isinstance(document, dict) or "server_load" not in document:
        return None
    return {"running": document["server_load"] or None}


VLLM = RuntimeSpec(
    name="vllm",
    title="vLLM",
    marks=(
        Mark("/v1/models", at=("data", 0, "owned_by"), starts="vllm"),
        # With an API key set, /v1/ is closed and the rest is open.
        Mark("/load", at=("server_load",)),
        Mark("/metrics", contains=b"vllm:num_requests_running"),
    ),
    readiness=Readiness("/health"),
    listing=Listing("/v1/models", items=("data",), parent="parent"),
    loads=(
        LoadSource(
            "/metrics",
            metrics=(
                Metric("running", (Series("vllm:num_requests_running"),), required=True),
                Metric("waiting", (Series("vllm:num_requests_waiting"),), required=True),
                Metric(
                    "kv_usage_ratio",
                    (Series("vllm:kv_cache_usage_perc"), Series("vllm:gpu_cache_usage_perc")),
                    combine=Combine.MEAN,
                    required=True,
                ),
                Metric(
                    "kv_capacity_tokens",
                    (Series("vllm:cache_config_info"),),
                    labels=("block_size", "num_gpu_blocks"),
                ),
                Metric("prompt_tokens_total", (Series("vllm:prompt_tokens_total"),)),
                Metric("output_tokens_total", (Series("vllm:generation_tokens_total"),)),
                Metric(
                    "prefix_hit_ratio",
                    (Series("vllm:prefix_cache_hits_total"), Series("vllm:gpu_prefix_cache_hits_total")),
                    per=Series("vllm:prefix_cache_queries_total"),
                ),
            ),
        ),
        LoadSource("/load", read=_server_load, inferred=frozenset({"running"})),
    ),
    unsaid=frozenset({"max_running", "waiting_tokens"}),
    dying=(Sign(500, b"cannot schedule new futures after shutdown"), Sign(503, b"EngineDeadError")),
    idle_close_s=5.0,  # uvicorn's default
    source="recorded from vLLM 0.32; older names from vllm-project/vllm v0.6 to v0.9",
)
