"""Writing the number of an object with the scale subresource."""

from __future__ import annotations

from autoscaler.actuators.kubernetes.objects import Object
from lb.kube import KubeApi, PatchKind


async def write(api: KubeApi, path: str, replicas: int, *, name: str, version: str, manager: str) -> Object:
    """Store it under our name if the object still has this version; ConflictError if not. Returns the Scale.

    By server-side apply where there is such a thing: the API server (1.36) answers an apply on the scale of a custom
    resource with 500, so that those get a merge patch, which is noted under our name as well.
    """
    metadata = {"name": name, "resourceVersion": version}
    body = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": {"replicas": replicas}}
    if path.startswith("/apis/apps/"):
        # Forced: whoever may not be overruled has been refused before, by a look at this very version.
        return await api.apply(f"{path}/scale", body, field_manager=manager, force=True)
    return await api.patch(f"{path}/scale", body, PatchKind.MERGE, field_manager=manager)
