"""Which paths are reachable through Tidegate: an allow-list. What is not on it does not exist here.

Every engine keeps admin paths (flush the cache, load weights, shut down) on its serving port; none of them is listed,
so none can be reached, however the path is spelled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import unquote

from lb.request import SurfaceName
from lb.settings import PathSettings
from lb.surface import Route, Surface
from lb.surfaces import SURFACES
from lb.surfaces.custom import Custom
from lb.surfaces.opaque import Question

_POST = frozenset({"POST"})
_GET = frozenset({"GET", "HEAD"})
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CustomRoute(Route):
    """A path with a reader of its own: the policy's custom paths, and questions about a model."""

    reader: Surface | None = None


def surface_of(route: Route) -> Surface:
    """Who reads the bodies of this route."""
    if isinstance(route, CustomRoute) and route.reader is not None:
        return route.reader
    return SURFACES[route.surface]


def _work(surface: SurfaceName, *paths: str, streams: bool = False) -> dict[str, Route]:
    route = Route(surface, _POST, generates=True, streams_by_path=streams)
    return dict.fromkeys(paths, route)


_DOCUMENT = Route(SurfaceName.OTHER, _GET, generates=False)
_QUESTION = CustomRoute(SurfaceName.OTHER, _POST, generates=False, reader=Question())
_EXACT: dict[str, Route] = {
    **_work(SurfaceName.CHAT, "/v1/chat/completions", "/chat/completions"),
    **_work(SurfaceName.COMPLETIONS, "/v1/completions"),
    **_work(SurfaceName.EMBEDDINGS, "/v1/embeddings", "/embeddings", "/embedding", "/pooling", "/classify"),
    **_work(SurfaceName.RESPONSES, "/v1/responses"),
    **_work(SurfaceName.MESSAGES, "/v1/messages"),
    **_work(SurfaceName.RERANK, "/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranking", "/reranking"),
    **_work(SurfaceName.SCORE, "/v1/score", "/score"),
    **_work(SurfaceName.AUDIO, "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/audio/speech"),
    **_work(SurfaceName.SGLANG, "/generate"),
    **_work(SurfaceName.TGI, "/"),
    **_work(SurfaceName.TGI, "/generate_stream", streams=True),
    **_work(SurfaceName.LLAMACPP, "/completion", "/completions", "/infill"),
    **_work(SurfaceName.OLLAMA_GENERATE, "/api/generate"),
    **_work(SurfaceName.OLLAMA_CHAT, "/api/chat"),
    **_work(SurfaceName.OLLAMA_EMBED, "/api/embed", "/api/embeddings"),
    **dict.fromkeys(
        ("/v1/models", "/v2", "/v2/health/live", "/v2/health/ready", "/api/tags", "/api/version"), _DOCUMENT
    ),
    **dict.fromkeys(
        ("/tokenize", "/detokenize", "/v1/messages/count_tokens", "/chat_tokenize", "/apply-template", "/api/show"),
        _QUESTION,
    ),
}

_V2 = re.compile(
    r"/v2/models/(?P<model>[^/]+)(?:/versions/[A-Za-z0-9._-]+)?"
    r"(?:/(?P<verb>generate|generate_stream|infer|infer_stream|ready|config))?"
)
_V2_VERBS = {
    "generate": Route(SurfaceName.TRITON_GENERATE, _POST, generates=True),
    "generate_stream": Route(SurfaceName.TRITON_GENERATE, _POST, generates=True, streams_by_path=True),
    "infer": Route(SurfaceName.TRITON_INFER, _POST, generates=True),
    "infer_stream": Route(SurfaceName.TRITON_INFER, _POST, generates=True, streams_by_path=True),
}
_V1_MODEL = "/v1/models/"

_UNSAFE = re.compile(
    r"[^!-~]|[\\;#?\"<>^`{|}]|//|/\.{1,2}(?:/|$)"
    r"|%(?![0-9A-Fa-f]{2})|%(?:[0189A-F][0-9A-F]|2[5EF]|3[BF]|5C|7F)",
    re.IGNORECASE,
)
"""Spellings that one hop reads otherwise than the next: control and non-ASCII bytes, backslash, path parameters, empty
and dot segments, and percent escapes of those (%25 is a second layer of escapes, %00 to %1F are control bytes)."""
_MAX_PATH = 2048
_SEGMENT = re.compile(r"[A-Za-z0-9._:@+~=,-]{1,256}")
"""Model names in paths; several segments (`org/name`) only under /v1/models."""

ADMIN = re.compile(
    r"(?:/v\d+)?/(?:flush_cache|clear_cache|reset_(?:prefix|mm|encoder)_cache|update_weights|update_weight|load_lora_adapter|"
    r"unload_lora_adapter|lora-adapters|load_weights|init_weights|get_weights|release_memory|resume_memory|destroy_weights|"
    r"server_info|get_server_info|get_internal_state|set_internal_state|model_info|get_model_info|get_load|load|loads|"
    r"metrics|prometheus|sleep|wake_up|is_sleeping|pause|resume|is_paused|abort|abort_request|abort_requests|slots|props|"
    r"start_profile|stop_profile|start_expert|stop_expert|dump_expert|configure_logging|freeze_gc|shutdown|terminate|"
    r"collective_rpc|scale_elastic_ep|is_scaling|open_session|close_session|set_trace_level|repository|logging|trace|"
    r"systemsharedmemory|cudasharedmemory|api/(?:pull|push|create|copy|delete|blobs|ps)|models/(?:load|unload)|hicache|"
    r"distserve|nodes|debug|admin|docs|openapi\.json|redoc)(?:[/_.-]|$)",
    re.IGNORECASE,
)
"""Known admin paths, held back even where the policy allows a whole tree (`/*`); name one exactly to allow it."""


class PathTable:
    """The allow-list with the policy's additions."""

    __slots__ = ("_exact", "_trees")

    def __init__(self, settings: PathSettings) -> None:
        self._exact = dict(_EXACT)
        trees: list[str] = []
        extra = Route(SurfaceName.OTHER, frozenset({"GET", "HEAD", "POST"}), generates=True)
        for path in settings.allow:
            if path.endswith("/*"):
                trees.append(path[:-1])
            else:
                self._exact.setdefault(path, extra)
        for path in settings.websocket:
            self._exact[path] = Route(SurfaceName.WEBSOCKET, frozenset({"GET"}), generates=True)
        for custom in settings.custom:
            self._exact[custom.path] = CustomRoute(SurfaceName.CUSTOM, _POST, generates=True, reader=Custom(custom))
        self._trees = tuple((tree, extra) for tree in trees)

    def match(self, method: str, path: str) -> Route | None:
        """The route of a request whose path (without its query) is on the list for this method; None: 404 or 405."""
        route = self._exact.get(path)
        if route is None:
            route = self._find(path)
        return route if route is not None and method in route.methods else None

    def methods(self, path: str) -> frozenset[str]:
        """Methods that this path takes; empty: there is no such path (404), else a refused method is a 405."""
        route = self._exact.get(path) or self._find(path)
        return route.methods if route is not None else _NONE

    def _find(self, path: str) -> Route | None:
        if len(path) > _MAX_PATH or not path.startswith("/") or _UNSAFE.search(path) is not None:
            return None
        if path.startswith("/v2/models/"):
            return _v2(path)
        if path.startswith(_V1_MODEL):
            name = path[len(_V1_MODEL) :]
            known = all(_SEGMENT.fullmatch(unquote(segment)) for segment in name.split("/"))
            return replace(_DOCUMENT, model_in_path=unquote(name)) if known else None
        if ADMIN.match(path) is not None:
            return None
        for tree, route in self._trees:
            if path.startswith(tree):
                return route
        return None


def _v2(path: str) -> Route | None:
    found = _V2.fullmatch(path)
    if found is None:
        return None
    model = unquote(found["model"])
    if _SEGMENT.fullmatch(model) is None:
        return None
    return replace(_V2_VERBS.get(found["verb"] or "", _DOCUMENT), model_in_path=model)
