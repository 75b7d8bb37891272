"""SGLang. `/v1/loads` is always on and counts tokens; its metrics need `--enable-metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lb.runtime import Combine, Listing, LoadSource, Mark, Metric, Readiness, RuntimeSpec, Series

_SAME = frozenset({"tp_rank", "pp_rank", "moe_ep_rank", "moe_dp_rank"})
"""Labels of ranks that work on the same requests; `dp_rank` is not among them."""


def _ranks(document: object, *wanted: str) -> list[dict[str, Any]] | None:
    if not isinstance(document, list) or not document:
        return None
    ranks = [rank for rank in document if isinstance(rank, dict) and all(key in rank for key in wanted)]
    return ranks if len(ranks) == len(document) else None


def _total(ranks: list[dict[str, Any]], key: str) -> object:
    """Sum over ranks, or the first value that is no number, for the reader to refuse."""
    values = [rank.get(key) for rank in ranks]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
    return sum(v for v in values if isinstance(v, int | float))


def _loads(document: object) -> Mapping[str, object] | None:
    """`/v1/loads`: one entry per data-parallel rank, to be added up by whoever asks."""
    ranks = _ranks(document.get("loads") if isinstance(document, dict) else None, "num_running_reqs")
    if ranks is None:
        return None
    used, capacity = _total(ranks, "num_used_tokens"), _total(ranks, "max_total_num_tokens")
    usage: object = None
    if isinstance(used, int | float) and isinstance(capacity, int | float) and capacity > 0:
        usage = used / capacity
    # `token_usage` is the fullest of several pools (hybrid models), so it is the floor.
    fullest = _total(ranks, "token_usage")
    if isinstance(fullest, int | float):
        mean = fullest / len(ranks)
        usage = max(usage, mean) if isinstance(usage, float) else mean
    hits = _total(ranks, "cache_hit_rate")
    return {
        "running": _total(ranks, "num_running_reqs"),
        "waiting": _total(ranks, "num_waiting_reqs"),
        "waiting_tokens": _total(ranks, "num_waiting_uncached_tokens"),
        "kv_usage_ratio": usage,
        "kv_capacity_tokens": capacity,
        "max_running": _total(ranks, "max_running_requests"),
        "prefix_hit_ratio": hits / len(ranks) if isinstance(hits, int | float) else hits,
    }


def _get_load(document: object) -> Mapping[str, object] | None:
    """`/get_load` of older versions: `num_reqs` counts those that wait as well."""
    ranks = _ranks(document, "num_reqs", "num_waiting_reqs")
    if ranks is None:
        return None
    total, waiting = _total(ranks, "num_reqs"), _total(ranks, "num_waiting_reqs")
    if not isinstance(total, int | float) or not isinstance(waiting, int | float):
        return None
    return {"running": total - waiting, "waiting": waiting}


def _both(name: str) -> tuple[Series, ...]:
    """Some builds write `sglang_` for `sglang:`."""
    return Series(f"sglang:{name}"), Series(f"sglang_{name}")


SGLANG = RuntimeSpec(
    name="sglang",
    title="SGLang",
    marks=(
        Mark("/v1/models", at=("data", 0, "owned_by"), starts="sglang"),
        Mark("/get_model_info", at=("is_generation",)),
        Mark("/metrics", contains=b"sglang:num_running_reqs"),
    ),
    # 503 is both "starting" and "nothing comes back from the engine"; only a server that was ready can be the latter.
    readiness=Readiness("/health", loading=frozenset({503}), loading_once=True),
    listing=Listing("/v1/models", items=("data",), parent="parent"),
    loads=(
        LoadSource("/v1/loads?include=core", read=_loads),
        LoadSource(
            "/metrics",
            metrics=(
                Metric("running", _both("num_running_reqs"), same=_SAME, required=True),
                Metric("waiting", _both("num_queue_reqs"), same=_SAME, required=True),
                Metric("kv_usage_ratio", _both("token_usage"), combine=Combine.MEAN, same=_SAME, required=True),
                Metric("prefix_hit_ratio", _both("cache_hit_rate"), combine=Combine.MEAN, same=_SAME),
                Metric("prompt_tokens_total", _both("prompt_tokens_total"), same=_SAME),
                Metric("output_tokens_total", _both("generation_tokens_total"), same=_SAME),
                Metric(
                    "kv_capacity_tokens",
                    (Series("sglang:cache_config_info"),),
                    labels=("page_size", "num_pages"),
                    same=_SAME,
                ),
            ),
        ),
        LoadSource("/get_load", read=_get_load),
    ),
    idle_close_s=5.0,  # uvicorn's default
    never_poll=frozenset({"/health_generate", "/flush_cache"}),
    source="sgl-project/sglang: docs/references/production_metrics.md, entrypoints/http_server.py, /v1/loads of 0.5",
)
