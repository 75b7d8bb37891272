"""Every proxy and policy that the benchmarks know, by name."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.proxies.haproxy import Haproxy
from tests.bench.proxies.nginx import Nginx
from tests.bench.proxies.sglang_router import SglangRouter
from tests.bench.proxies.tidegate import Tidegate
from tests.bench.proxies.vllm_router import VllmRouter
from tests.bench.proxy import Proxy

PROXIES: dict[str, Callable[[], Proxy]] = {
    "nginx": lambda: Nginx("nginx", ""),
    "nginx-least-conn": lambda: Nginx("nginx-least-conn", "least_conn"),
    "haproxy": lambda: Haproxy("haproxy", "roundrobin"),
    "haproxy-leastconn": lambda: Haproxy("haproxy-leastconn", "leastconn"),
    "sglang-router": lambda: SglangRouter("sglang-router", "cache_aware"),
    "sglang-router-p2c": lambda: SglangRouter("sglang-router-p2c", "power_of_two"),
    "vllm-router": lambda: VllmRouter("vllm-router", "cache_aware"),
    "vllm-router-p2c": lambda: VllmRouter("vllm-router-p2c", "power_of_two"),
    "tidegate": lambda: Tidegate("tidegate", "tidegate"),
    "tidegate-least-requests": lambda: Tidegate("tidegate-least-requests", "least-requests"),
    "tidegate-p2c": lambda: Tidegate("tidegate-p2c", "p2c"),
    "tidegate-round-robin": lambda: Tidegate("tidegate-round-robin", "round-robin"),
}
