"""vLLM's metrics, by their exact names, in Prometheus text format."""

from __future__ import annotations

from bisect import bisect_left

# Bucket bounds as a vLLM 0.32 exports them.
_TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
         160.0, 640.0, 2560.0)  # fmt: skip
_ITL = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_E2E = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
        1920.0, 7680.0)  # fmt: skip
VLLM_BLOCK_TOKENS = 16
"""vLLM's own block size; `num_gpu_blocks` counts in it."""


class Histogram:
    """Cumulative buckets."""

    def __init__(self, name: str, bounds: tuple[float, ...]) -> None:
        self.name = name
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def lines(self, label: str) -> list[str]:
        out = [f"# TYPE {self.name} histogram"]
        total = 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            out.append(f'{self.name}_bucket{{engine="0",le="{bound}",{label}}} {total}.0')
        out.append(f'{self.name}_count{{engine="0",{label}}} {total}.0')
        out.append(f'{self.name}_sum{{engine="0",{label}}} {self._sum}')
        return out


class VllmMetrics:
    """What one replica counts. Times are in wall seconds: nobody outside knows of a model clock."""

    def __init__(self, model_name: str) -> None:
        self._label = f'model_name="{model_name}"'
        self.ttft = Histogram("vllm:time_to_first_token_seconds", _TTFT)
        self.itl = Histogram("vllm:inter_token_latency_seconds", _ITL)
        self.e2e = Histogram("vllm:e2e_request_latency_seconds", _E2E)
        self.finished = {"stop": 0, "length": 0, "abort": 0}

    def text(
        self, *, running: int, waiting: int, kv_usage_ratio: float, prompt_tokens: int, generation_tokens: int,
        prefix_queries: int, prefix_hits: int, kv_tokens: int, prefix_cache: bool,
    ) -> bytes:  # fmt: skip
        """The page of /metrics."""
        label = f'engine="0",{self._label}'
        out: list[str] = []

        def one(name: str, kind: str, value: float, extra: str = "") -> None:
            out.append(f"# TYPE {name} {kind}")
            out.append(f"{name}{{{label}{extra}}} {float(value)}")

        one("vllm:num_requests_running", "gauge", running)
        one("vllm:num_requests_waiting", "gauge", waiting)
        one("vllm:num_requests_waiting_by_reason", "gauge", waiting, ',reason="capacity"')
        out.append(f'vllm:num_requests_waiting_by_reason{{{label},reason="deferred"}} 0.0')
        one("vllm:engine_sleep_state", "gauge", 1, ',sleep_state="awake"')
        one("vllm:kv_cache_usage_perc", "gauge", kv_usage_ratio)
        one("vllm:prefix_cache_queries_total", "counter", prefix_queries)
        one("vllm:prefix_cache_hits_total", "counter", prefix_hits)
        one("vllm:num_preemptions_total", "counter", 0)
        one("vllm:prompt_tokens_total", "counter", prompt_tokens)
        one("vllm:prompt_tokens_cached_total", "counter", prefix_hits)
        one("vllm:generation_tokens_total", "counter", generation_tokens)
        out.append("# TYPE vllm:request_success_total counter")
        for reason, count in self.finished.items():
            out.append(f'vllm:request_success_total{{{label},finished_reason="{reason}"}} {count}.0')
        for histogram in (self.ttft, self.itl, self.e2e):
            out.extend(histogram.lines(self._label))
        out.append("# TYPE vllm:cache_config_info gauge")
        out.append(
            f'vllm:cache_config_info{{block_size="{VLLM_BLOCK_TOKENS}",enable_prefix_caching="{prefix_cache}",'
            f'engine="0",num_gpu_blocks="{kv_tokens // VLLM_BLOCK_TOKENS}"}} 1.0'
        )
        return ("\n".join(out) + "\n").encode()
