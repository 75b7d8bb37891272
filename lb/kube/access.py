"""How the API server is reached: from inside the cluster, by a kubeconfig file, or as told."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_kube_config

from lb.errors import SettingsError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts a pod's token, the authority's certificate and the namespace."""


@dataclass(frozen=True, slots=True)
class InCluster:
    """As the ServiceAccount of the pod we run in."""

    directory: Path = SERVICE_ACCOUNT


@dataclass(frozen=True, slots=True)
class KubeConfig:
    """As a kubeconfig file says. `path` None: `KUBECONFIG`, or ~/.kube/config; `context` None: its current one."""

    path: Path | None = None
    context: str | None = None


@dataclass(frozen=True, slots=True)
class Explicit:
    """With a bearer token from a file, which is read again for each call."""

    url: str
    ca_file: Path
    token_file: Path


Access = InCluster | KubeConfig | Explicit


async def configuration(access: Access) -> Configuration:
    """The client's configuration. Raises SettingsError if something that `access` names is not there."""
    made = Configuration()
    if isinstance(access, KubeConfig):
        path = access.path or Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        try:
            await load_kube_config(  # type: ignore[no-untyped-call]
                str(path), access.context, made, persist_config=False
            )
        except (ConfigException, OSError, ValueError) as error:
            raise SettingsError(f"kubeconfig {path} cannot be used: {error}") from None
        return made
    if isinstance(access, InCluster):
        access = _told_by_the_kubelet(access)
    for name in (access.ca_file, access.token_file):
        if not name.is_file():
            raise SettingsError(
                f"no file {name}, which the Kubernetes API needs; outside of a cluster name a kubeconfig"
            )
    made.host = access.url
    made.ssl_ca_cert = str(access.ca_file)
    made.api_key["BearerToken"] = ""
    token_file = access.token_file

    def read_token(configuration: Any) -> None:
        # Bound tokens are replaced every hour or sooner. Reading a small file from memory costs less than any rule on
        # when it would have to be read again, and a rule can be wrong.
        configuration.api_key["BearerToken"] = "Bearer " + token_file.read_text().strip()

    made.refresh_api_key_hook = read_token  # type: ignore[assignment]
    return made


def own_namespace(access: Access) -> str | None:
    """The namespace of the pod we run in; None outside of a cluster."""
    if not isinstance(access, InCluster):
        return None
    try:
        return (access.directory / "namespace").read_text().strip() or None
    except OSError:
        return None


def _told_by_the_kubelet(access: InCluster) -> Explicit:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise SettingsError("KUBERNETES_SERVICE_HOST is not set, so this is no pod; name a kubeconfig")
    host = f"[{host}]" if ":" in host else host
    return Explicit(f"https://{host}:{port}", access.directory / "ca.crt", access.directory / "token")
