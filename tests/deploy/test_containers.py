"""The containers of the manifests, started as processes: arguments, policy, environment, probes and the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.conftest import OVERLAYS, built
from tests.deploy.kustomize import Manifest, containers, pod_spec

START_S = 30.0
TOKEN = "an-admin-token"
WORKLOADS = [
    pytest.param(overlay, manifest, id=f"{overlay.name}-{manifest['metadata']['name']}")
    for overlay in OVERLAYS
    for manifest in built(overlay)
    if pod_spec(manifest) is not None
]


@dataclass
class Running:
    """A container's process, and where it answers, by the name of the port."""

    process: subprocess.Popen[str]
    ports: dict[str, int]

    def status(self, port: str, path: str, **headers: str) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[port]}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


def volume(overlay: Path, workload: Manifest, folder: Path) -> None:
    """Write what the kubelet would project into /etc/tidegate: files behind a link, which it swaps at a change."""
    spec = pod_spec(workload)
    assert spec is not None
    behind = folder / "..2026_01_01"
    behind.mkdir(parents=True)
    (folder / "..data").symlink_to(behind.name)
    for source in (source for one in spec.get("volumes", ()) for source in one.get("projected", {}).get("sources", ())):
        if "configMap" in source:
            name = source["configMap"]["name"]
            maps = [one for one in built(overlay) if (one["kind"], one["metadata"]["name"]) == ("ConfigMap", name)]
            files = maps[0]["data"]
        else:
            files = {item["path"]: TOKEN for item in source["secret"]["items"]}
        for name, text in files.items():
            for address in ("0.0.0.0:8080", "127.0.0.1:8080", "0.0.0.0:9400", "0.0.0.0:9500"):
                text = text.replace(f"listen: {address}", f"listen: {address.split(':')[0]}:0")
            (behind / name).write_text(text)
            (behind / name).chmod(0o440)
            (folder / name).symlink_to(f"..data/{name}")


@contextmanager
def started(overlay: Path, workload: Manifest, folder: Path) -> Iterator[Running]:
    """Outside of a cluster: whatever needs the API server finds none, which must keep nobody from starting."""
    (container,) = containers(workload)
    policy = folder / "etc"
    volume(overlay, workload, policy)
    arguments = [one.replace("/etc/tidegate", str(policy)).replace("8000", "0") for one in container["args"]]
    fields = {"metadata.name": "pod-0", "metadata.namespace": "tidegate", "spec.nodeName": "gpu-0"}
    given = {
        one["name"]: one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
        for one in container.get("env", ())
    }
    if "STATE_DIRECTORY" in given:
        given["STATE_DIRECTORY"] = str(folder / "state")
        (folder / "state").mkdir()
    environment = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **given}
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "autoscaler", *arguments], env=environment, cwd=Path(__file__).parents[2],
            stdout=log, stderr=log, text=True,
        )  # fmt: skip
        try:
            yield Running(process, _ports(process, folder / "log"))
        finally:
            process.kill()
            process.wait()


def _ports(process: subprocess.Popen[str], log: Path) -> dict[str, int]:
    """From the line that says that it is ready, whichever form the log has."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().rpartition("\n")[0].splitlines():
            if line.startswith("{") and json.loads(line)["msg"] == "ready":
                told = json.loads(line)
                return {"http": _port(told["listen"]), "admin": _port(told["admin"])}
            words = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if words.get("msg") == "ready":
                return {"http": _port(words["listen"]), "admin": _port(words["admin"])}
            if line.startswith("listening on http://"):
                return {"http": _port(line)}
        time.sleep(0.05)
    raise AssertionError(f"it did not come up:\n{log.read_text()}")


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.mark.parametrize(("overlay", "workload"), WORKLOADS)
def test_a_container_starts_passes_its_probes_and_ends_in_time(
    overlay: Path, workload: Manifest, tmp_path: Path
) -> None:
    (container,) = containers(workload)
    with started(overlay, workload, tmp_path) as running:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in container:
                asked = container[probe]["httpGet"]
                deadline = time.monotonic() + START_S
                while running.status(asked["port"], asked["path"]) != 200:
                    assert time.monotonic() < deadline, f"{probe} does not pass"
                    time.sleep(0.05)
        if "admin" in running.ports:
            assert running.status("admin", "/v1/status") == 401, "the admin API asks for the token of the Secret"
            assert running.status("admin", "/v1/status", Authorization=f"Bearer {TOKEN}") == 200
            assert running.status("admin", "/metrics") == 200
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=30) == 0
