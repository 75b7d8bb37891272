"""llama.cpp's server. Fixed slots; `/metrics` needs `--metrics`, `/slots` is the way round."""

from __future__ import annotations

from collections.abc import Mapping

from lb.runtime import Combine, Facts, Listing, LoadSource, Mark, Metric, Readiness, RuntimeSpec, Series


def _slots(document: object) -> Mapping[str, object] | None:
    """`/slots`: what each slot holds. Requests that wait for a slot are not in it."""
    if not isinstance(document, list) or not document:
        return None
    busy = 0
    used = context = 0.0
    for slot in document:
        if not isinstance(slot, dict) or not isinstance(slot.get("is_processing"), bool):
            return None
        size, tokens = slot.get("n_ctx"), slot.get("n_prompt_tokens")
        context += size if isinstance(size, int) else 0
        if slot["is_processing"]:
            busy += 1
            # Counts what was generated since as well.
            used += tokens if isinstance(tokens, int) else 0
    return {
        "running": busy,
        "max_running": len(document),
        "kv_usage_ratio": used / context if context > 0 else None,
        "kv_capacity_tokens": context or None,
    }


LLAMACPP = RuntimeSpec(
    name="llamacpp",
    title="llama.cpp",
    marks=(
        # Every answer carries it, the 503 of a server that is still loading too.
        Mark("/v1/models", server="llama.cpp", statuses=frozenset()),
        Mark("/v1/models", at=("data", 0, "owned_by"), starts="llamacpp"),
        Mark("/metrics", contains=b"llamacpp:requests_processing"),
    ),
    readiness=Readiness("/health", loading=frozenset({503}), loading_body=b"loading model"),
    listing=Listing("/v1/models", items=("data",), aliases="aliases"),
    loads=(
        LoadSource(
            "/metrics",
            metrics=(
                Metric("running", (Series("llamacpp:requests_processing"),), required=True),
                Metric("waiting", (Series("llamacpp:requests_deferred"),), required=True),
                # Taken out of newer versions.
                Metric("kv_usage_ratio", (Series("llamacpp:kv_cache_usage_ratio"),), combine=Combine.MEAN),
                Metric("prompt_tokens_total", (Series("llamacpp:prompt_tokens_total"),)),
                Metric("output_tokens_total", (Series("llamacpp:tokens_predicted_total"),)),
            ),
        ),
        LoadSource("/slots", read=_slots, inferred=frozenset({"kv_usage_ratio"})),
    ),
    facts=(Facts("/props", {"max_running": ("total_slots",)}),),
    any_model=True,
    unsaid=frozenset({"waiting_tokens", "prefix_hit_ratio"}),
    abandons_unary=True,
    idle_close_s=5.0,
    closes_after_error=True,
    source="recorded from llama.cpp b11434",
)
