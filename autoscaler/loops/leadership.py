"""The election of this process, on a Lease of the cluster that it runs in (or that its kubeconfig names)."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from uuid import uuid4

from autoscaler.loops.leader import LeaderLoop
from autoscaler.policy.lease import LeaseSettings
from lb.errors import SettingsError


class Leadership:
    """Made once per process. Raises SettingsError if it cannot know where the Lease is."""

    def __init__(self, settings: LeaseSettings, environ: Mapping[str, str]) -> None:
        # Its client takes half a second to import, which all who have no lease are spared.
        from autoscaler.loops.kubernetes_lease import KubernetesLease
        from lb.kube import InCluster, KubeConfig
        from lb.kube.access import own_namespace

        self.settings = settings
        access = InCluster() if environ.get("KUBERNETES_SERVICE_HOST") else KubeConfig()
        namespace = settings.namespace or environ.get("POD_NAMESPACE") or own_namespace(access)
        if not namespace:
            raise SettingsError("scaling.lease.namespace: this is no pod, so say in which namespace the Lease is")
        self._lease = KubernetesLease(access, settings, namespace)
        # A name that no other process ever has: a pod may be restarted under the same one.
        identity = f"{environ.get('POD_NAME') or socket.gethostname()}_{uuid4().hex[:12]}"
        self.loop = LeaderLoop(settings, identity, self._lease)

    async def close(self) -> None:
        """Let another take over at once. To be called when nothing is being done any more."""
        await self.loop.give_back()
        await self._lease.close()
