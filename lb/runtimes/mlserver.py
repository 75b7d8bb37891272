"""MLServer (KServe's v2 protocol). Metrics on a port of their own (8082)."""

from __future__ import annotations

from lb.runtime import Listing, LoadSource, Mark, Metric, Readiness, RuntimeSpec, Series

MLSERVER = RuntimeSpec(
    name="mlserver",
    title="MLServer",
    marks=(Mark("/v2", at=("name",), starts="mlserver"),),
    readiness=Readiness("/v2/health/ready", loading=frozenset({400})),
    listing=Listing(
        "/v2/repository/index", items=(), name="name", method="POST", states={"state": frozenset({"READY"})}
    ),
    loads=(
        LoadSource(
            "/metrics",
            port=8082,
            metrics=(
                # Requests inside the HTTP server: running and waiting are not told apart.
                Metric(
                    "running",
                    (Series("rest_server_requests_in_progress", (("method", "POST"),)),),
                    required=True,
                ),
            ),
            inferred=frozenset({"running"}),
        ),
    ),
    unsaid=frozenset(
        {
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
    abandons_unary=True,
    idle_close_s=5.0,  # uvicorn's default
    usage_in_stream=False,
    source="recorded from MLServer 1.7.1",
)
