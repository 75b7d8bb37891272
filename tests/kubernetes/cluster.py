"""A real Kubernetes control plane on loopback: etcd, API server, controllers, scheduler, and kwok for kubelets."""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import ssl
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from lb.kube import Explicit
from tests.kubernetes import certificates
from tests.kubernetes.cache import program
from tests.kubernetes.children import Child, free_port

ZONES = ("zone-a", "zone-b", "zone-a")
"""Zones of the nodes `gpu-0`, `gpu-1`, ... that every cluster begins with."""
GPUS = 8
_START_S = 60.0
_IDENTITIES = {
    "admin": ("admin", "system:masters"),
    "kcm": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kwok": ("kwok", "system:masters"),
}


class Cluster:
    """One control plane with its files in `directory` and a node for each of `zones`. `start` it, `kill` it."""

    def __init__(self, directory: Path, zones: tuple[str, ...] = ZONES) -> None:
        self._zones = zones
        self.directory = directory
        self.port = free_port()
        self.etcd_port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca = directory / "ca.crt"
        self.tokens = {name: secrets.token_hex(16) for name in _IDENTITIES}
        self.children: dict[str, Child] = {}
        self._numbers = count(1)
        self._tls: ssl.SSLContext | None = None

    def start(self) -> None:
        """Until pods can be made: about four seconds. Raises AssertionError with the log of what did not come up."""
        certificates.make(self.directory)
        lines = [
            f'{self.tokens[name]},{user},{name},"{group}"' if group else f"{self.tokens[name]},{user},{name}"
            for name, (user, group) in _IDENTITIES.items()
        ]
        (self.directory / "tokens.csv").write_text("\n".join(lines) + "\n")
        clients, peers = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{free_port()}"
        self._run(
            "etcd", f"--data-dir={self.directory / 'etcd'}", "--log-level=warn", "--unsafe-no-fsync",
            f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}", f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}",
        )  # fmt: skip
        self.start_api()
        self._run(
            "kube-controller-manager", f"--kubeconfig={self.kubeconfig('kcm')}", "--secure-port=0",
            "--leader-elect=false", "--use-service-account-credentials=true", f"--root-ca-file={self.ca}",
            f"--service-account-private-key-file={self.directory / 'sa.key'}",
            "--kube-api-qps=200", "--kube-api-burst=400",
        )  # fmt: skip
        self._run(
            "kube-scheduler", f"--kubeconfig={self.kubeconfig('scheduler')}", "--secure-port=0", "--leader-elect=false"
        )
        self.start_kwok()
        self.eventually(
            lambda: self.call("GET", "/api/v1/namespaces/default/serviceaccounts/default")[0] == 200,
            "the default ServiceAccount",
        )
        for index, zone in enumerate(self._zones):
            self.add_node(f"gpu-{index}", zone=zone, address=f"127.1.0.{index + 1}")
        self.eventually(
            lambda: all(map(self.node_ready, (f"gpu-{index}" for index in range(len(self._zones))))), "nodes"
        )

    def start_kwok(self, cidr: str = "10.244.0.1/16") -> None:
        """Kubelets for all nodes. `cidr`: addresses of pods; those in 127.0.0.0/8 can be listened on."""
        stages = self.directory / "stages.yaml"
        stages.write_text(kwok_stages())
        self._run(
            "kwok", f"--kubeconfig={self.kubeconfig('kwok')}", "--manage-all-nodes=true", f"--config={stages}",
            "--node-lease-duration-seconds=40", f"--server-address=127.0.0.1:{free_port()}", f"--cidr={cidr}",
            "--node-ip=127.0.0.1",
        )  # fmt: skip

    def start_api(self, *extra: str) -> None:
        """Start the API server and wait until it answers; also again, after `kill_api`, on the same port.

        Call it from the main thread: a child ends with the thread that started it.
        """
        self._run(
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self.etcd_port}", "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1", f"--secure-port={self.port}", "--endpoint-reconciler-type=none",
            f"--tls-cert-file={self.directory / 'server.crt'}",
            f"--tls-private-key-file={self.directory / 'server.key'}",
            f"--token-auth-file={self.directory / 'tokens.csv'}", "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.directory / 'sa.key'}",
            f"--service-account-signing-key-file={self.directory / 'sa.key'}",
            "--service-cluster-ip-range=10.0.0.0/24", *extra,
        )  # fmt: skip
        self.eventually(lambda: self.call("GET", "/readyz")[0] == 200, "the API server")

    def kill_api(self) -> None:
        self.children.pop("kube-apiserver").kill()

    def kill(self) -> None:
        """End everything at once."""
        for child in reversed(self.children.values()):
            child.kill()
        self.children.clear()

    def call(
        self, method: str, path: str, body: object = None, content_type: str = "application/json", token: str = ""
    ) -> tuple[int, Any]:
        """One request as the administrator, or with `token`: (status, decoded JSON or text). Status 0: no answer."""
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self._tls)
        try:
            connection.request(
                method,
                path,
                None if body is None else json.dumps(body),
                {"Authorization": f"Bearer {token or self.tokens['admin']}", "Content-Type": content_type},
            )
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(data) if is_json else data.decode()

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make an object in the collection at `path`. Raises AssertionError with the server's answer."""
        status, answer = self.call("POST", path, body)
        assert status in (200, 201), (status, answer)
        created: dict[str, Any] = answer
        return created

    def access(self, identity: str = "admin", *, token: str = "", url: str | None = None) -> Explicit:
        """For our own client: as one of the identities or with `token` (of a ServiceAccount), by way of `url`."""
        chosen = token or self.tokens[identity]
        path = self.directory / f"{hashlib.sha256(chosen.encode()).hexdigest()[:12]}.token"
        path.write_text(chosen)
        return Explicit(url or self.url, self.ca, path)

    def kubeconfig(self, identity: str, *, url: str | None = None) -> Path:
        """A kubeconfig file for one of the identities, by way of `url` (a proxy before the API server)."""
        path = (
            self.directory
            / f"{identity}{'' if url is None else '-' + hashlib.sha256(url.encode()).hexdigest()[:8]}.kubeconfig"
        )
        path.write_text(kubeconfig(url or self.url, self.ca, self.tokens[identity]))
        return path

    def add_node(
        self,
        name: str,
        *,
        zone: str = "zone-a",
        gpus: int = GPUS,
        labels: dict[str, str] | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        """A node that kwok plays the kubelet of; ready after 0.3 s. Its pods with `hostNetwork` have its `address`."""
        resources = {"cpu": "96", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": str(gpus)}
        self.create(
            "/api/v1/nodes",
            {
                "metadata": {
                    "name": name,
                    "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone, **(labels or {})},
                },
                "status": {
                    "allocatable": resources,
                    "capacity": resources,
                    "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
                },
            },
        )

    def add_namespace(self) -> str:
        """A new one, in which pods can be created."""
        name = f"test-{next(self._numbers)}"
        self.create("/api/v1/namespaces", {"metadata": {"name": name}})
        path = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        self.eventually(lambda: self.call("GET", path)[0] == 200, f"the ServiceAccount of {name}")
        return name

    def remove_namespace(self, name: str) -> None:
        """Its pods at once, so that the next test has their GPUs; the rest goes by itself."""
        self.call("DELETE", f"/api/v1/namespaces/{name}")
        # Only now: from a namespace that is being deleted no controller makes new ones.
        self.call("DELETE", f"/api/v1/namespaces/{name}/pods", {"kind": "DeleteOptions", "gracePeriodSeconds": 0})

    def node_ready(self, name: str) -> bool:
        conditions = self.call("GET", f"/api/v1/nodes/{name}")[1].get("status", {}).get("conditions", [])
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def eventually(self, holds: Callable[[], bool], what: str, within_s: float = _START_S) -> None:
        """Ask again until it holds. Raises AssertionError with the log of what has ended meanwhile."""
        deadline = time.monotonic() + within_s
        while not holds():
            for child in self.children.values():
                assert child.alive, f"{child.name} ended:\n{child.tail()}"
            logs = "\n".join(f"{child.name}: {child.tail(5)}" for child in self.children.values())
            assert time.monotonic() < deadline, f"not within {within_s} s: {what}\n{logs}"
            time.sleep(0.05)

    def _run(self, name: str, *arguments: str) -> None:
        self.children[name] = Child(name, [program(name), *arguments], self.directory / f"{name}.log")


def kubeconfig(url: str, ca: Path, token: str) -> str:
    """The text of a kubeconfig file."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(ca)}}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        }
    )


def kwok_stages() -> str:
    """kwok's own fast stages, with start-up and termination times that a test sets by annotation.

    `test/ready-delay: 60s` on a pod is its start-up time; patched to `0s` it is ready at once. `test/exit-after: 0s`
    ends a deleted pod at once; without it the pod goes when its grace period is over.
    """
    stages = [yaml.safe_load(path.read_text()) for path in sorted(program("stages").glob("*.yaml"))]
    for stage in stages:
        if stage["metadata"]["name"] == "pod-ready":
            expression = '.metadata.annotations["test/ready-delay"]'
            stage["spec"]["delay"] = {"durationMilliseconds": 0, "durationFrom": {"expressionFrom": expression}}
        if stage["metadata"]["name"] == "pod-delete":
            expression = '.metadata.annotations["test/exit-after"] // .metadata.deletionTimestamp'
            stage["spec"]["delay"] = {"durationFrom": {"expressionFrom": expression}}
            stage["spec"]["selector"]["matchExpressions"] = [
                {"key": ".metadata.deletionTimestamp", "operator": "Exists"},
                {"key": ".metadata.finalizers", "operator": "DoesNotExist"},
            ]
    return yaml.safe_dump_all(stages)
