"""Ollama. No metrics at all: its queue is invisible and is inferred from our own requests."""

from __future__ import annotations

from collections.abc import Mapping

from lb.runtime import Listing, LoadSource, Mark, Readiness, RuntimeSpec


def _loaded(document: object) -> Mapping[str, object] | None:
    """`/api/ps`: models in memory, which is all that it says."""
    models = document.get("models") if isinstance(document, dict) else None
    if not isinstance(models, list):
        return None
    names = [model.get("name") for model in models if isinstance(model, dict)]
    known = [name for name in names if isinstance(name, str)]
    short = [name.removesuffix(":latest") for name in known if name.endswith(":latest")]
    return {"loaded_models": tuple(dict.fromkeys([*known, *short]))}


_SLOTS = 2.0
"""Requests run at once: 1 by default today (`OLLAMA_NUM_PARALLEL`), up to 4 by choice of older versions. Too many
would hide requests in a queue that nobody sees (16 at once went to one of two idle servers); too few cost little, as
a short queue is kept behind the slots. `max_in_flight` is the operator's cap."""


OLLAMA = RuntimeSpec(
    name="ollama",
    title="Ollama",
    marks=(
        Mark("/v1/models", at=("data", 0, "owned_by"), starts="library"),
        Mark("/", contains=b"Ollama is running"),
    ),
    readiness=Readiness("/api/version"),
    listing=Listing("/api/tags", items=("models",), name="name", drop_suffix=":latest"),
    loads=(LoadSource("/api/ps", read=_loaded, assumed={"max_running": _SLOTS}),),
    unsaid=frozenset(
        {
            "running",
            "waiting",
            "waiting_tokens",
            "kv_usage_ratio",
            "kv_capacity_tokens",
            "prompt_tokens_total",
            "output_tokens_total",
            "prefix_hit_ratio",
        }
    ),
    source="recorded from Ollama 0.17.4",
)
