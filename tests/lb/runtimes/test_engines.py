"""Every engine's table against what that engine answers."""

from __future__ import annotations

import pytest

from lb.runtime import Answer, ProbeStatus, RuntimeLoad
from lb.runtime_reader import LoadReader, Reading, identify, judge, read_facts, read_models
from lb.runtimes import DETECTION_PATHS, RUNTIMES
from tests.lb.runtimes.recordings import recorded


def read(name: str, source: int, answer: Answer, facts: dict[str, float] | None = None) -> Reading:
    return LoadReader(RUNTIMES[name].loads[source], facts).read(answer)


def load(name: str, source: int, file: str, facts: dict[str, float] | None = None) -> RuntimeLoad:
    reading = read(name, source, recorded(file), facts)
    assert reading.load is not None, reading.reason
    assert reading.missing == ()
    assert reading.dropped == ()
    return reading.load


DETECTED = [
    ("vllm", "/v1/models", recorded("vllm/models.json")),
    ("vllm", "/load", recorded("vllm/load_busy.json")),
    ("vllm", "/metrics", recorded("vllm/metrics_idle.txt")),
    ("sglang", "/v1/models", recorded("sglang/models.json")),
    ("sglang", "/metrics", recorded("sglang/metrics.txt")),
    ("sglang", "/get_model_info", Answer(200, b'{"model_path":"m","tokenizer_path":"m","is_generation":true}')),
    ("tgi", "/info", recorded("tgi/info.json")),
    ("tgi", "/metrics", recorded("tgi/metrics.txt")),
    ("triton", "/v2", recorded("triton/get_v2.txt")),
    ("triton", "/metrics", recorded("triton/metrics_idle.txt")),
    ("mlserver", "/v2", recorded("mlserver/get_v2.txt")),
    ("llamacpp", "/v1/models", recorded("llamacpp/models.txt")),
    ("llamacpp", "/v1/models", recorded("llamacpp/health_loading.txt")),
    ("llamacpp", "/metrics", recorded("llamacpp/metrics_idle.txt")),
    ("ollama", "/v1/models", recorded("ollama/get_v1_models.txt")),
    ("ollama", "/", recorded("ollama/get_.txt")),
    ("trtllm", "/v1/models", recorded("trtllm/models.json")),
    ("trtllm", "/prometheus/metrics", recorded("trtllm/metrics.txt")),
    ("lmdeploy", "/v1/models", recorded("lmdeploy/models.json")),
    ("lmdeploy", "/metrics", recorded("lmdeploy/metrics.txt")),
]


@pytest.mark.parametrize(("name", "path", "answer"), DETECTED, ids=lambda v: v if isinstance(v, str) else "")
def test_detected(name: str, path: str, answer: Answer) -> None:
    assert path in DETECTION_PATHS
    assert identify(RUNTIMES.values(), path, answer) == name


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>hello</html>"),
        Answer(404, b'{"detail":"Not Found"}'),
        Answer(401, b'{"error":"Unauthorized"}'),
        Answer(200, b"[" * 100_000),
        Answer(200, b'{"data":[{"owned_by":7}],"name":null,"router":[]}'),
        recorded("triton/root.txt"),
        recorded("mlserver/root.txt"),
        recorded("ollama/get_health.txt"),
    ],
)
def test_nothing_is_detected_in_what_says_nothing(answer: Answer) -> None:
    for path in DETECTION_PATHS:
        assert identify(RUNTIMES.values(), path, answer) is None


def test_no_engine_reads_what_it_must_not() -> None:
    for spec in RUNTIMES.values():
        asked = {spec.readiness.path, *(load.path for load in spec.loads), *(fact.path for fact in spec.facts)}
        asked |= {mark.path for mark in spec.marks}
        assert not asked & spec.never_poll, spec.name


def test_every_engine_is_complete() -> None:
    for name, spec in RUNTIMES.items():
        assert spec.name == name
        assert spec.title
        assert spec.source
        assert bool(spec.marks) == (name != "generic")
        told = {metric.field for load in spec.loads for metric in load.metrics}
        told |= {name for load in spec.loads for name in load.assumed}
        assert not told & spec.unsaid, name
        assert (told | spec.unsaid | {f for fact in spec.facts for f in fact.fields}) <= set(
            RuntimeLoad.__dataclass_fields__
        )


# readiness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "answer", "status"),
    [
        ("vllm", Answer(200, b""), ProbeStatus.READY),
        ("vllm", Answer(503, b""), ProbeStatus.FAILED),
        ("llamacpp", recorded("llamacpp/health.txt"), ProbeStatus.READY),
        ("llamacpp", recorded("llamacpp/health_loading.txt"), ProbeStatus.LOADING),
        ("llamacpp", Answer(503, b'{"error":{"message":"no slot available"}}'), ProbeStatus.FAILED),
        ("triton", recorded("triton/model_ready.txt"), ProbeStatus.READY),
        ("triton", recorded("triton/err_unknown_ready.txt"), ProbeStatus.LOADING),
        ("triton", recorded("pytriton/model_not_ready.txt"), ProbeStatus.LOADING),
        ("mlserver", recorded("mlserver/ready.txt"), ProbeStatus.READY),
        ("mlserver", Answer(400, b""), ProbeStatus.LOADING),
        ("ollama", recorded("ollama/get_api_version.txt"), ProbeStatus.READY),
        ("sglang", Answer(503, b""), ProbeStatus.LOADING),
        ("tgi", Answer(503, b'{"error":"unhealthy","error_type":"healthcheck"}'), ProbeStatus.FAILED),
        ("trtllm", Answer(200, b""), ProbeStatus.READY),
        ("lmdeploy", Answer(200, b""), ProbeStatus.READY),
        ("generic", Answer(404, b""), ProbeStatus.READY),
        ("generic", Answer(503, b"Model is Loading"), ProbeStatus.LOADING),
        ("generic", Answer(503, b"overloaded"), ProbeStatus.FAILED),
        ("generic", Answer(500, b""), ProbeStatus.FAILED),
    ],
)
def test_readiness(name: str, answer: Answer, status: ProbeStatus) -> None:
    assert judge(RUNTIMES[name].readiness, answer)[0] is status


def test_sglang_503_after_it_was_ready_is_a_failure() -> None:
    readiness = RUNTIMES["sglang"].readiness
    assert judge(readiness, Answer(503, b""), was_ready=True)[0] is ProbeStatus.FAILED


@pytest.mark.parametrize("name", list(RUNTIMES))
@pytest.mark.parametrize("status", [401, 403])
def test_a_probe_without_a_key_finds_it_alive(name: str, status: int) -> None:
    found, reason = judge(RUNTIMES[name].readiness, Answer(status, b""))
    assert found is ProbeStatus.READY
    assert "no key" in reason


def test_reasons_are_one_short_printable_line() -> None:
    _, reason = judge(RUNTIMES["vllm"].readiness, Answer(500, b"\x00\x1b[31m boom\n" + b"x" * 10_000))
    assert reason.startswith("500 [31m boom x")
    assert reason.isprintable()
    assert len(reason) < 100


# models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "answer", "models", "adapters"),
    [
        ("vllm", recorded("vllm/models.json"), ("tiny",), ()),
        ("sglang", recorded("sglang/models.json"), ("qwen/qwen2.5-0.5b-instruct", "sql"), ("sql",)),
        ("tgi", recorded("tgi/models.json"), ("bigscience/bloom-560m",), ()),
        ("triton", recorded("triton/repo_index.txt"), ("double", "words"), ()),
        ("mlserver", recorded("mlserver/repo_index.txt"), ("double",), ()),
        ("llamacpp", recorded("llamacpp/models.txt"), ("tiny.gguf",), ()),
        ("ollama", recorded("ollama/get_api_tags.txt"), ("tiny:latest", "tiny"), ()),
        ("trtllm", recorded("trtllm/models.json"), ("nemotron-nano-3",), ()),
        ("lmdeploy", recorded("lmdeploy/models.json"), ("internlm3",), ()),
        ("generic", recorded("vllm/models.json"), ("tiny",), ()),
    ],
)
def test_models(name: str, answer: Answer, models: tuple[str, ...], adapters: tuple[str, ...]) -> None:
    listing = RUNTIMES[name].listing
    assert listing is not None
    listed = read_models(listing, answer)
    assert listed is not None
    assert (listed.models, listed.adapters) == (models, adapters)


def test_mlserver_lists_only_what_is_loaded() -> None:
    listing = RUNTIMES["mlserver"].listing
    assert listing is not None
    listed = read_models(listing, Answer(200, b'[{"name":"a","state":"READY"},{"name":"b","state":"LOADING"}]'))
    assert listed is not None
    assert listed.models == ("a",)


def test_a_restricted_or_broken_listing_is_none() -> None:
    listing = RUNTIMES["triton"].listing
    assert listing is not None
    assert read_models(listing, recorded("pytriton/repository_index.txt")) is None
    assert read_models(listing, Answer(403, b"[]")) is None
    assert read_models(listing, Answer(200, b'[7, {"name": ""}, {"name": 5}]')) is not None


# load ------------------------------------------------------------------------------------------------------------


def test_vllm_busy() -> None:
    found = load("vllm", 0, "vllm/metrics_busy.txt")
    assert (found.running, found.waiting) == (8, 12)
    assert found.kv_usage_ratio == pytest.approx(0.009768, rel=1e-3)
    assert (found.prompt_tokens_total, found.output_tokens_total) == (32, 4248)
    assert found.max_running is None
    assert found.inferred == frozenset()


def test_vllm_idle_is_zero_and_not_unknown() -> None:
    found = load("vllm", 0, "vllm/metrics_idle.txt")
    assert (found.running, found.waiting) == (0, 0)


def test_vllm_sums_its_engines_and_averages_their_caches() -> None:
    text = b"""vllm:num_requests_running{engine="0",model_name="m"} 8
vllm:num_requests_running{engine="1",model_name="m"} 5
vllm:num_requests_waiting{engine="0",model_name="m"} 2
vllm:num_requests_waiting{engine="1",model_name="m"} 0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 99
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.9
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.1
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"} 1
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="1000"} 1
"""
    found = read("vllm", 0, Answer(200, text)).load
    assert found is not None
    assert (found.running, found.waiting) == (13, 2)
    assert found.kv_usage_ratio == pytest.approx(0.5)
    assert found.kv_capacity_tokens == 32_000


def test_vllm_old_names() -> None:
    text = b"""vllm:num_requests_running{model_name="m"} 1
vllm:num_requests_waiting{model_name="m"} 2
vllm:gpu_cache_usage_perc{model_name="m"} 0.25
"""
    reading = read("vllm", 0, Answer(200, text))
    assert reading.load is not None
    assert reading.load.kv_usage_ratio == 0.25
    assert reading.missing == ()


def test_vllm_server_load_counts_both_and_says_so() -> None:
    found = load("vllm", 1, "vllm/load_busy.json")
    assert found.running == 20
    assert found.inferred == {"running"}
    # Without its flag it is always 0: that is not believed.
    assert read("vllm", 1, Answer(200, b'{"server_load":0}')).load is None


def test_sglang_metrics() -> None:
    found = load("sglang", 1, "sglang/metrics.txt")
    assert (found.running, found.waiting, found.kv_usage_ratio) == (162, 2826, 0.28)
    assert (found.prompt_tokens_total, found.output_tokens_total) == (8_128_902, 7_557_572)


def test_sglang_adds_data_parallel_ranks_and_not_tensor_parallel_ones() -> None:
    found = load("sglang", 1, "sglang/metrics_ranks.txt")
    assert (found.running, found.waiting) == (43, 3)
    assert found.kv_usage_ratio == pytest.approx(0.6)


def test_sglang_loads() -> None:
    found = load("sglang", 0, "sglang/v1_loads.json")
    assert (found.running, found.waiting, found.waiting_tokens) == (43, 3, 6144)
    assert (found.max_running, found.kv_capacity_tokens) == (512, 1_048_576)
    assert found.kv_usage_ratio == pytest.approx(673_954 / 1_048_576)


def test_sglang_old_load_counts_the_waiting_twice() -> None:
    found = load("sglang", 2, "sglang/get_load.json")
    assert (found.running, found.waiting) == (24, 3)


@pytest.mark.parametrize(
    "body",
    [
        b'{"loads":[]}',
        b'{"aggregate":{"total_tokens":5}}',
        b'{"loads":[7]}',
        b"[]",
        b'{"loads":[{"num_running_reqs":"NaN","num_waiting_reqs":null}]}',
        b'{"loads":[{"num_running_reqs":true}]}',
        b'{"loads":[{"num_running_reqs":-5,"num_waiting_reqs":1e308}]}',
    ],
)
def test_sglang_loads_of_another_shape(body: bytes) -> None:
    reading = read("sglang", 0, Answer(200, body))
    assert reading.load is None
    assert reading.reason


def test_tgi() -> None:
    spec = RUNTIMES["tgi"]
    facts = read_facts(spec.facts[0], recorded("tgi/info.json"))
    assert facts == {"kv_capacity_tokens": 32_000}
    found = load("tgi", 0, "tgi/metrics.txt", facts)
    assert (found.running, found.waiting, found.kv_capacity_tokens) == (4, 7, 32_000)
    assert (found.prompt_tokens_total, found.output_tokens_total) == (18_231, 8_123)
    assert found.kv_usage_ratio is None


def test_triton() -> None:
    found = load("triton", 0, "triton/metrics_under_load.txt")
    assert found.waiting == 1
    assert found.running is None
    assert load("triton", 0, "pytriton/metrics_busy.txt").waiting == 7
    assert load("triton", 0, "triton/metrics_idle.txt").waiting == 0


def test_triton_with_the_tensorrt_llm_backend() -> None:
    text = b"""nv_inference_pending_request_count{model="ensemble",version="1"} 2
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 5
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 8
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.4875
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} 1
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 6239
"""
    found = read("triton", 0, Answer(200, text)).load
    assert found == RuntimeLoad(
        running=5, waiting=5, kv_usage_ratio=0.4875, kv_capacity_tokens=6239 * 64, max_running=512
    )


def test_mlserver_counts_requests_and_does_not_tell_them_apart() -> None:
    found = load("mlserver", 0, "mlserver/metrics_under_load.txt")
    assert found.running == 3
    assert found.inferred == {"running"}
    assert load("mlserver", 0, "mlserver/metrics_idle.txt").running == 0


def test_llamacpp() -> None:
    facts = read_facts(RUNTIMES["llamacpp"].facts[0], recorded("llamacpp/props.txt"))
    found = load("llamacpp", 0, "llamacpp/metrics_under_load.txt", facts)
    assert (found.running, found.waiting, found.max_running) == (2, 2, 4)
    assert (found.prompt_tokens_total, found.output_tokens_total) == (41, 40)


def test_llamacpp_slots() -> None:
    found = load("llamacpp", 1, "llamacpp/slots_busy.txt")
    assert (found.running, found.max_running, found.kv_capacity_tokens) == (2, 2, 8192)
    assert found.waiting is None
    assert found.inferred == {"kv_usage_ratio"}
    assert found.kv_usage_ratio is not None
    assert 0 < found.kv_usage_ratio < 0.1


def test_ollama_tells_what_is_loaded_and_nothing_else() -> None:
    found = load("ollama", 0, "ollama/api_ps_loaded.txt")
    assumed = frozenset({"max_running"})
    assert found == RuntimeLoad(loaded_models=("tiny:latest", "tiny"), max_running=2, inferred=assumed)
    nothing = read("ollama", 0, Answer(200, b'{"models":[]}')).load
    assert nothing == RuntimeLoad(loaded_models=(), max_running=2, inferred=assumed)


def test_trtllm() -> None:
    found = load("trtllm", 0, "trtllm/metrics.txt")
    assert (found.running, found.waiting, found.max_running) == (12, 5, 64)
    assert (found.kv_usage_ratio, found.kv_capacity_tokens) == (0.61, 65_536)
    assert found.prefix_hit_ratio == 0.25


def test_lmdeploy_adds_both_queues() -> None:
    found = load("lmdeploy", 0, "lmdeploy/metrics.txt")
    assert (found.running, found.waiting) == (10, 7)
    assert found.kv_usage_ratio == pytest.approx(0.3)
