"""nginx, one worker, set up as one would for streams."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.proxy import need_debian

# Bodies stay in memory (a temporary file would be charged to nginx), replies are passed on as they arrive, and
# connections to replicas are kept, which nginx does not do by itself.
_CONFIG = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log crit; user {user};
events {{ worker_connections 19900; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 2m; keepalive_requests 100000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream replicas {{ {method} {servers} keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=16384;
    location = /ready {{ return 200; }}
    location / {{
      proxy_pass http://replicas; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Request-Id $request_id; proxy_buffering off; proxy_read_timeout 600s;
      proxy_connect_timeout 1s;
    }}
  }}
}}
"""


class Nginx:
    """`method`: empty for round robin, or `least_conn`."""

    ready_path = "/ready"

    def __init__(self, name: str, method: str) -> None:
        self.name = name
        self._method = method

    def prepare(self) -> None:
        need_debian("nginx")

    def command(self, port: int, spare_port: int, backends: Sequence[str], folder: Path) -> list[str]:
        servers = " ".join(f"server {url.rpartition('/')[2]};" for url in backends)
        config = folder / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                folder=folder,
                port=port,
                servers=servers,
                method=f"{self._method};" if self._method else "",
                user="root",
            )
        )
        return ["nginx", "-p", str(folder), "-c", str(config)]
