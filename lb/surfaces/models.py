"""The list of models as clients ask for it: the union over all replicas, not what one of them happens to serve."""

from __future__ import annotations

from collections.abc import Iterable

from lb.surfaces.fields import encode

OWNER = "tidegate"


def served(replica_models: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """All models of all replicas, each once, sorted."""
    return tuple(sorted({model for models in replica_models for model in models}))


def _entry(model: str, created: int) -> dict[str, object]:
    return {"id": model, "object": "model", "created": created, "owned_by": OWNER}


def list_body(replica_models: Iterable[Iterable[str]], created: int = 0) -> bytes:
    """Body of GET /v1/models. `created`: epoch seconds that all entries show; replicas do not agree on one."""
    return encode({"object": "list", "data": [_entry(model, created) for model in served(replica_models)]})


def model_body(replica_models: Iterable[Iterable[str]], model: str, created: int = 0) -> bytes | None:
    """Body of GET /v1/models/{id}; None: no replica serves it (404)."""
    return encode(_entry(model, created)) if any(model in models for models in replica_models) else None
