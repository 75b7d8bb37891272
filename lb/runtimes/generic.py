"""Any HTTP server that speaks one of the supported APIs and tells nothing of itself."""

from __future__ import annotations

from lb.runtime import Listing, Readiness, RuntimeSpec

GENERIC = RuntimeSpec(
    name="generic",
    title="any other",
    marks=(),
    # A server without /health answers 404 or 405, which is an answer.
    readiness=Readiness(
        "/health",
        ready=frozenset({200, 204}),
        loading=frozenset({503}),
        loading_body=b"loading",
        alive=frozenset({301, 302, 307, 308, 400, 404, 405, 501}),
    ),
    listing=Listing("/v1/models", items=("data",)),
    unsaid=frozenset(
        {
            "running",
            "waiting",
            "waiting_tokens",
            "kv_usage_ratio",
            "kv_capacity_tokens",
            "max_running",
            "prompt_tokens_total",
            "output_tokens_total",
            "prefix_hit_ratio",
        }
    ),
    source="none: what any HTTP server does",
)
