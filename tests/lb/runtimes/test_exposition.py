"""The text reader: exact names, labels with anything in them, hostile text, and its cost."""

from __future__ import annotations

import math
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from lb.exposition import MAX_BYTES, MAX_SERIES, Sample, TooManySeriesError, read_samples
from tests.lb.runtimes.recordings import DATA

NAMES = ("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:cache_config_info")


def test_a_longer_name_is_another_metric() -> None:
    text = b'a_by_reason{reason="x"} 12\na 3\na_total 9\n'
    assert read_samples(text, ["a"]) == {"a": [Sample({}, 3.0)]}


def test_the_first_line_counts_and_help_lines_do_not() -> None:
    text = b'a 1\n# HELP a things\n# TYPE a gauge\na{b="c"} 2\n'
    assert read_samples(text, ["a"])["a"] == [Sample({}, 1.0), Sample({"b": "c"}, 2.0)]


def test_absent_names_are_not_in_the_result() -> None:
    assert read_samples(b"a 1\n", ["b"]) == {}


@pytest.mark.parametrize(
    ("line", "labels"),
    [
        (rb'a{m="x} 7",n="\"\\\n"} 5', {"m": "x} 7", "n": '"\\\n'}),
        (rb'a{ m = "x" , n="y" , } 5', {"m": "x", "n": "y"}),
        (b"a{} 5", {}),
        ('a{m="模型"} 5'.encode(), {"m": "模型"}),
        (b'a{m="\xff"} 5', {"m": "\ufffd"}),
    ],
)
def test_labels(line: bytes, labels: dict[str, str]) -> None:
    assert read_samples(line + b"\n", ["a"])["a"] == [Sample(labels, 5.0)]


@pytest.mark.parametrize(
    ("rest", "value"),
    [
        (b" 5 1795198663627", 5.0),  # a timestamp, here far in the future, is not looked at
        (b' 5 99999999999999 # {trace_id="x"} 1', 5.0),
        (b"\t1.5e+06", 1.5e6),
        (b" +Inf", math.inf),
        (b" -1", -1.0),
    ],
)
def test_values(rest: bytes, value: float) -> None:
    assert read_samples(b"a" + rest + b"\n", ["a"])["a"][0].value == value


@pytest.mark.parametrize("rest", [b" NaN", b" 1_000", b" 0x10", b" ", b' {m="x} 5', b'{m="x" 5', b" five", b"{m=x} 5"])
def test_what_is_no_number_is_nan(rest: bytes) -> None:
    assert math.isnan(read_samples(b"a" + rest + b"\n", ["a"])["a"][0].value)


def test_a_cut_last_line_is_left_out() -> None:
    assert read_samples(b"a 1\na 23", ["a"], truncated=True)["a"] == [Sample({}, 1.0)]
    assert read_samples(b"a 1\na 23", ["a"])["a"][1].value == 23.0
    assert read_samples(b"a 23", ["a"], truncated=True) == {}


def test_text_beyond_the_cap_is_not_read() -> None:
    text = b"a 1\n" + b"# filler\n" * (MAX_BYTES // 9) + b"b 2\n"
    assert set(read_samples(text, ["a", "b"])) == {"a"}


def test_a_million_series_are_refused() -> None:
    lines = b"".join(b'a{i="%d"} 1\n' % i for i in range(MAX_SERIES + 1))
    with pytest.raises(TooManySeriesError, match="more than 1024 samples of a"):
        read_samples(lines, ["a"])


@pytest.mark.parametrize("file", ["vllm/metrics_busy.txt", "vllm/metrics_idle.txt", "llamacpp/metrics_idle.txt"])
def test_agrees_with_the_reference_reader(file: str) -> None:
    text = (DATA / file).read_text()
    expected: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            expected.setdefault(sample.name, []).append(Sample(dict(sample.labels), float(sample.value)))
    assert len(expected) > 10
    # The reference invents `_total` for counters that lack it; names as they stand in the text are compared.
    names = [name for name in expected if re.search(rf"^{re.escape(name)}[ {{]", text, re.MULTILINE)]
    assert read_samples(text.encode(), names) == {name: expected[name] for name in names}


@given(st.binary(max_size=300), st.sampled_from(["a", "vllm:x", "b"]))
def test_never_raises_on_garbage(garbage: bytes, name: str) -> None:
    samples = read_samples(name.encode() + garbage + b"\n" + name.encode() + b" 1\n", [name])[name]
    assert samples[-1] == Sample({}, 1.0)


def test_cost_of_a_vllm_exposition() -> None:
    text = (DATA / "vllm/metrics_busy.txt").read_bytes()
    assert len(text) > 45_000
    best = math.inf
    for _ in range(20):
        started = time.perf_counter()
        read_samples(text, NAMES)
        best = min(best, time.perf_counter() - started)
    assert best < 0.001


def test_cost_of_a_hostile_mebibyte_is_linear() -> None:
    near_misses = (b"vllm:num_requests_waiting_x 1\n" * (MAX_BYTES // 30))[:MAX_BYTES]
    open_labels = b"vllm:num_requests_running{" + b'a="\\\\",' * (MAX_BYTES // 8)
    for text in (near_misses, open_labels):
        started = time.process_time()
        read_samples(text, NAMES)
        assert time.process_time() - started < 0.5
