"""HAProxy, one thread; without `http-no-delay` it would hold the events of a stream back for up to 200 ms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.proxy import need_debian

_CONFIG = """
global
  nbthread 1
  maxconn 9500
  tune.bufsize 32768
defaults
  mode http
  timeout connect 1s
  timeout client 600s
  timeout server 600s
  timeout queue 60s
  option http-keep-alive
  option http-no-delay
  http-reuse always
frontend clients
  bind 127.0.0.1:{port} backlog 16384
  http-request return status 200 if {{ path /ready }}
  unique-id-format %{{+X}}o\\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
  http-request set-header X-Request-Id %[unique-id]
  default_backend replicas
backend replicas
  balance {method}
  option httpchk GET /health
  default-server check inter 1s fall 3 rise 2
{servers}
"""


class Haproxy:
    """`method`: `roundrobin` or `leastconn`."""

    ready_path = "/ready"

    def __init__(self, name: str, method: str) -> None:
        self.name = name
        self._method = method

    def prepare(self) -> None:
        need_debian("haproxy")

    def command(self, port: int, spare_port: int, backends: Sequence[str], folder: Path) -> list[str]:
        servers = "\n".join(f"  server r{index} {url.rpartition('/')[2]}" for index, url in enumerate(backends))
        config = folder / "haproxy.cfg"
        config.write_text(_CONFIG.format(port=port, method=self._method, servers=servers))
        return ["haproxy", "-db", "-f", str(config)]
