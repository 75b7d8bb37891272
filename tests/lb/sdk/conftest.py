"""A balancer before a simulated runtime, both real processes, and the OpenAI SDK as it comes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import openai
import pytest

from lb.auth import key_digest
from tests.lb.loops.processes import START_S, free_port

KEY = "sk-sdk-0123456789"
LIMITED_KEY = "sk-limited-0123456789"


def call(method: str, url: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """One small request, past the SDK."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=5) as reply:
        raw = reply.read()
        return reply.status, json.loads(raw) if raw[:1] in (b"{", b"[") else raw.decode()


@dataclass
class Service:
    """Where the SDK finds the balancer, and where the test finds the rest."""

    url: str
    admin: str
    replica: str

    def client(self, key: str = KEY, **options: Any) -> openai.OpenAI:
        options.setdefault("max_retries", 0)
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, **options)

    def fault(self, kind: str, **details: Any) -> None:
        """Make the runtime fail from now on; `none` makes it well."""
        assert call("POST", f"{self.replica}/mock/fault", {"kind": kind, **details})[0] == 200

    def view(self) -> Any:
        return call("GET", f"{self.admin}/v1/replicas")[1]

    def until(self, condition: Callable[[Any], bool]) -> None:
        """Wait for the balancer's view to be so."""
        deadline = time.monotonic() + START_S
        while not condition(self.view()):
            assert time.monotonic() < deadline, self.view()
            time.sleep(0.02)


def _spawn(log: IO[bytes], *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "autoscaler", *arguments], stdout=log, stderr=log)


def _up(url: str) -> bool:
    try:
        return call("GET", url)[0] == 200
    except (OSError, urllib.error.URLError):
        return False


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("sdk")
    replica, port, admin = (free_port() for _ in range(3))
    policy = {
        "lb": {
            "listen": f"127.0.0.1:{port}",
            "admin": {"listen": f"127.0.0.1:{admin}"},
            "backends": [{"url": f"http://127.0.0.1:{replica}"}],
            "keys": [
                {"name": "sdk", "sha256": key_digest(KEY)},
                {"name": "limited", "sha256": key_digest(LIMITED_KEY), "models": ["another-model"]},
            ],
            "timeouts": {"idle": "700ms", "first_byte": "3s"},
            "health": {"failures": 1000},
            "admission": {"queue_wait": "1s"},
        }
    }
    (folder / "policy.yaml").write_text(json.dumps(policy))
    with (folder / "log").open("ab") as log:
        mock = _spawn(log, "mock-runtime", "--port", str(replica), "--speed", "20", "--output-tokens", "20")
        balancer = _spawn(log, "run", "--policy", str(folder / "policy.yaml"))
    service = Service(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}", f"http://127.0.0.1:{replica}")
    try:
        deadline = time.monotonic() + START_S
        while not _up(f"{service.admin}/readyz") or service.view()["replicas"][0]["state"] != "ready":
            assert time.monotonic() < deadline, (folder / "log").read_text()[-1000:]
            time.sleep(0.05)
        yield service
    finally:
        for process in (balancer, mock):
            process.kill()
            process.wait()


@pytest.fixture
def service(running: Service) -> Iterator[Service]:
    """The running service, well again after each test, with no request left in it."""
    yield running
    running.fault("none")
    running.until(lambda view: view["replicas"][0]["state"] == "ready" and view["open_tickets"] == 0)
