import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.paths import PathTable, surface_of
from lb.request import RequestInfo, SurfaceName
from lb.settings import CustomSurface, PathSettings

TABLE = PathTable(PathSettings())
OPEN = PathTable(PathSettings(allow=("/*",)))
"""The widest policy there is: even it must not reach what is known to be an admin path."""

ALLOWED = [
    ("POST", "/v1/chat/completions", SurfaceName.CHAT),
    ("POST", "/v1/completions", SurfaceName.COMPLETIONS),
    ("POST", "/v1/embeddings", SurfaceName.EMBEDDINGS),
    ("POST", "/v1/responses", SurfaceName.RESPONSES),
    ("POST", "/v1/messages", SurfaceName.MESSAGES),
    ("POST", "/v1/rerank", SurfaceName.RERANK),
    ("POST", "/v1/score", SurfaceName.SCORE),
    ("POST", "/score", SurfaceName.SCORE),
    ("POST", "/v1/audio/transcriptions", SurfaceName.AUDIO),
    ("POST", "/v1/audio/speech", SurfaceName.AUDIO),
    ("POST", "/generate", SurfaceName.SGLANG),
    ("POST", "/generate_stream", SurfaceName.TGI),
    ("POST", "/", SurfaceName.TGI),
    ("POST", "/completion", SurfaceName.LLAMACPP),
    ("POST", "/infill", SurfaceName.LLAMACPP),
    ("POST", "/embedding", SurfaceName.EMBEDDINGS),
    ("POST", "/api/generate", SurfaceName.OLLAMA_GENERATE),
    ("POST", "/api/chat", SurfaceName.OLLAMA_CHAT),
    ("POST", "/api/embed", SurfaceName.OLLAMA_EMBED),
    ("POST", "/v2/models/llama/generate", SurfaceName.TRITON_GENERATE),
    ("POST", "/v2/models/llama/versions/3/infer", SurfaceName.TRITON_INFER),
]

ADMIN = [
    "/flush_cache", "/update_weights", "/update_weights_from_disk", "/update_weights_from_tensor",
    "/update_weights_from_distributed", "/init_weights_update_group", "/get_weights_by_name", "/load_lora_adapter",
    "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/load_lora_adapter_from_tensors", "/lora-adapters",
    "/server_info", "/get_server_info", "/get_model_info", "/get_internal_state", "/set_internal_state", "/metrics",
    "/metrics/", "/prometheus/metrics", "/sleep", "/wake_up", "/is_sleeping", "/abort_request", "/abort_requests",
    "/pause_generation", "/resume_memory_occupation", "/release_memory_occupation", "/reset_prefix_cache",
    "/reset_mm_cache", "/start_profile", "/stop_profile", "/collective_rpc", "/scale_elastic_ep", "/open_session",
    "/close_session", "/configure_logging", "/freeze_gc", "/shutdown", "/terminate", "/slots", "/slots/0", "/props",
    "/v2/repository/index", "/v2/repository/models/llama/load", "/v2/repository/models/llama/unload", "/v2/logging",
    "/v2/trace/setting", "/v2/systemsharedmemory/status", "/v2/cudasharedmemory/region/x/register", "/api/pull",
    "/api/delete", "/api/create", "/api/copy", "/api/push", "/api/ps", "/api/blobs/sha256:00", "/models/load",
    "/models/unload", "/v1/loads", "/get_load", "/load", "/docs", "/openapi.json", "/distserve/engine_info",
]  # fmt: skip

TRICKS = [
    "//flush_cache", "/./flush_cache", "/v1/../flush_cache", "/v1/models/../../flush_cache", "/v1/models/..",
    "/v1/models/%2e%2e/flush_cache", "/v1/models/.%2e/flush_cache", "/v1/models/%2E%2E/flush_cache",
    "/v1/models/x/%2e%2e/%2e%2e/flush_cache", "/v1/models/..%2fflush_cache", "/v1/models/%2fflush_cache",
    "/v1/models/%2Fflush_cache", "/v1/models/x%2f..%2f..%2fflush_cache", "/v1/models/..%5cflush_cache",
    "/v1/models/..\\flush_cache", "/v1\\models", "/flush_cache;x", "/v1/models/;/../flush_cache", "/v1/models/x;y",
    "/v1/models/x%3by", "/;/flush_cache", "/v1/chat/completions/../../flush_cache", "/v1/chat/completions/.",
    "/v1/chat/completions/..", "/v1/chat/completions//", "/v1//chat/completions", "/v1/chat/completions/",
    "/v1/chat/completions%00", "/v1/models/a%00b", "/v1/models/a%0d%0aX:y", "/v1/models/a\r\nX:y", "/v1/models/a b",
    "/v1/models/%252e%252e/flush_cache", "/v1/models/%25", "/v1/models/%", "/v1/models/%zz", "/v1/models/%2",
    "/v1/models/caf\u00e9", "/v1/models/%c0%ae%c0%ae/flush_cache", "/v1/models/%ff", "/v1/models/\u2025/x",
    "/v1/models/\uff0e\uff0e/x", "/v1/models/a//b", "/v1/models//", "/v1/models/", "/v1/models/a?x", "/v1/models/a#x",
    "/v1/models/a%3fx", "/v1/models/a%23x", "/v2/models/../repository/index", "/v2/models/x/../../repository/index",
    "/v2/models/%2e%2e/repository", "/v2/models/x/versions/../load", "/v2/models/x/load", "/v2/models/a/b/infer",
    "/v2/models//infer", "/v2/models/x/infer/", "/v2/models/x/infer/../../y", "/v2/models/x/trace/setting",
    "/v2/models/x/stats", "/v2/models/x/versions/1/versions/2/infer", "flush_cache", "", "*", "http://host/flush_cache",
    "/v1/models/" + "a" * 3000, "/V1/CHAT/COMPLETIONS", "/v1/chat/completions\x7f", "/\t", "/v1/models/a|b",
    "/v1/models/{id}", '/v1/models/"', "/v1/models/<x>",
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "surface"), ALLOWED)
def test_the_apis_are_there(method: str, path: str, surface: SurfaceName) -> None:
    route = TABLE.match(method, path)
    assert route is not None
    assert route.surface is surface
    assert route.generates


@pytest.mark.parametrize("path", ADMIN)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
def test_no_admin_path_is_there_even_with_everything_allowed(method: str, path: str) -> None:
    assert TABLE.match(method, path) is None
    assert OPEN.match(method, path) is None


@pytest.mark.parametrize("path", TRICKS)
def test_tricks_find_nothing(path: str) -> None:
    for method in ("GET", "POST"):
        assert TABLE.match(method, path) is None
    assert not TABLE.methods(path)


@pytest.mark.parametrize("path", [p for p in TRICKS if "%" in p or ".." in p or "//" in p or "\\" in p])
def test_tricks_find_nothing_behind_a_wildcard(path: str) -> None:
    assert OPEN.match("POST", path) is None


@pytest.mark.parametrize("path", ["/FLUSH_CACHE", "/Metrics", "/V1/load_lora_adapter", "/API/Pull", "/Update_Weights"])
def test_admin_paths_are_known_in_any_case(path: str) -> None:
    assert OPEN.match("POST", path) is None


def test_methods_tell_404_from_405() -> None:
    assert TABLE.match("GET", "/v1/chat/completions") is None
    assert TABLE.methods("/v1/chat/completions") == {"POST"}
    assert TABLE.methods("/v1/models") == {"GET", "HEAD"}
    assert TABLE.match("DELETE", "/v1/models/llama") is None
    assert TABLE.methods("/v1/models/llama") == {"GET", "HEAD"}
    assert TABLE.methods("/nothing") == frozenset()


@pytest.mark.parametrize(
    "path",
    ["/v1/models", "/v1/models/llama-3", "/v1/models/org/llama-3.1", "/v2", "/v2/models/llama",
     "/v2/models/llama/ready", "/v2/models/llama/versions/1", "/v2/health/ready", "/api/tags", "/api/version"],
)  # fmt: skip
def test_documents_cost_nothing(path: str) -> None:
    route = TABLE.match("GET", path)
    assert route is not None
    assert not route.generates
    assert TABLE.match("POST", path) is None


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/v1/messages/count_tokens", "/api/show"])
def test_questions_cost_nothing(path: str) -> None:
    route = TABLE.match("POST", path)
    assert route is not None
    assert not route.generates


def test_questions_are_asked_of_a_replica_with_the_model() -> None:
    route = TABLE.match("POST", "/tokenize")
    assert route is not None
    info = RequestInfo("r", surface=route.surface)
    surface_of(route).read_request(b'{"model":"m","prompt":"hello"}', info)
    assert (info.model, info.max_tokens, info.prompt_bytes) == ("m", 0, 0)
    surface_of(route).read_request(b"not json", info)
    assert info.model == "m"


def test_the_model_is_read_from_the_path() -> None:
    assert getattr(TABLE.match("GET", "/v1/models/org/llama"), "model_in_path", None) == "org/llama"
    assert getattr(TABLE.match("GET", "/v1/models/llama3%3A8b"), "model_in_path", None) == "llama3:8b"
    route = TABLE.match("POST", "/v2/models/my.llama-3/versions/2/generate_stream")
    assert route is not None
    assert (route.model_in_path, route.streams_by_path) == ("my.llama-3", True)
    route = TABLE.match("POST", "/v2/models/m/infer")
    assert route is not None
    assert (route.surface, route.streams_by_path) == (SurfaceName.TRITON_INFER, False)


def test_streams_by_path() -> None:
    route = TABLE.match("POST", "/generate_stream")
    assert route is not None
    assert route.streams_by_path


def test_the_policy_adds_paths_and_trees() -> None:
    table = PathTable(PathSettings(allow=("/v1/predict", "/tools/*", "/flush_cache")))
    route = table.match("POST", "/v1/predict")
    assert route is not None
    assert (route.surface, route.generates) == (SurfaceName.OTHER, True)
    assert table.match("GET", "/tools/a/b") is not None
    assert table.match("GET", "/tools") is None
    assert table.match("GET", "/tools/../flush_cache") is None
    assert table.match("POST", "/flush_cache") is not None, "named exactly: the operator means it"
    assert table.match("POST", "/v1/predict/") is None


def test_an_allowed_path_does_not_change_a_known_one() -> None:
    route = PathTable(PathSettings(allow=("/v1/chat/completions",))).match("POST", "/v1/chat/completions")
    assert route is not None
    assert route.surface is SurfaceName.CHAT


def test_websockets_only_where_allowed() -> None:
    assert TABLE.match("GET", "/v1/realtime") is None
    route = PathTable(PathSettings(websocket=("/v1/realtime",))).match("GET", "/v1/realtime")
    assert route is not None
    assert route.surface is SurfaceName.WEBSOCKET


def test_each_custom_path_has_its_own_reader() -> None:
    table = PathTable(
        PathSettings(
            custom=(
                CustomSurface(path="/v1/predict"),
                CustomSurface(path="/ask", prompt="input.question", max_tokens="input.limit", model="engine"),
            )
        )
    )
    for path, body in (
        ("/v1/predict", b'{"model":"m","prompt":"hello","max_tokens":7}'),
        ("/ask", b'{"engine":"m","input":{"question":"hello","limit":7}}'),
    ):
        route = table.match("POST", path)
        assert route is not None
        info = RequestInfo("r", surface=route.surface)
        surface_of(route).read_request(body, info)
        assert (info.surface, info.model, info.max_tokens, info.prompt_bytes) == (SurfaceName.CUSTOM, "m", 7, 7)


@given(st.text(max_size=60))
def test_any_text_is_answered(path: str) -> None:
    for table in (TABLE, OPEN):
        route = table.match("POST", "/" + path)
        if route is not None:
            assert not {".", ".."} & set(path.split("/"))
            assert not any(escape in path.lower() for escape in ("%2e", "%2f", "%5c", "%25", ";", "\\", "//"))
