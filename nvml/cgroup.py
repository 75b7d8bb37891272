"""What a process belongs to, from the text of `/proc/<pid>/cgroup`. Pure.

Formats: `man 7 cgroups` for v1 (`id:controllers:path`) and v2 (`0::path`); systemd's unit names; the kubelet's two
cgroup drivers
(`kubepods.slice/kubepods-burstable-pod<uid>.slice/...` and `/kubepods/burstable/pod<uid>/<id>`); the scope names of
containerd,
CRI-O, Docker and Podman.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEX_ID = re.compile(r"(?:^|[-:/])([0-9a-f]{64})(?:\.scope|\.service)?$")
_POD = re.compile(
    r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?:$|:)"
)
_UNIT = re.compile(r"^[A-Za-z0-9:_.\\@-]+\.(?:service|scope)$")
_RUNTIME_SCOPE = re.compile(r"^(?:cri-containerd|crio|docker|libpod|containerd)-(?:conmon-)?[0-9a-f]{64}\.scope$")


@dataclass(frozen=True, slots=True)
class Membership:
    """Where a process lives. All None: a plain process outside any unit."""

    unit: str | None = None
    pod_uid: str | None = None
    """With dashes, as the Kubernetes API writes it."""
    container_id: str | None = None


def parse_cgroup(text: str) -> Membership:
    """The most telling path of the file. With v1 and hybrid layouts `name=systemd` and the unified path carry the
    unit."""
    best = Membership()
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        found = _parse_path(parts[2])
        best = Membership(
            unit=best.unit or found.unit,
            pod_uid=best.pod_uid or found.pod_uid,
            container_id=best.container_id or found.container_id,
        )
    if best.container_id is not None:
        # Around a container stands its runtime's unit (docker.service, a pod's scope), which owns nothing.
        return Membership(pod_uid=best.pod_uid, container_id=best.container_id)
    return best


def _parse_path(path: str) -> Membership:
    pod_uid = container_id = unit = None
    for segment in path.split("/"):
        if match := _POD.search(segment):
            pod_uid = _with_dashes(match.group(1))
        if match := _HEX_ID.search(segment):
            container_id = match.group(1)
        if _UNIT.match(segment) and not _RUNTIME_SCOPE.match(segment):
            unit = segment
    return Membership(unit=unit, pod_uid=pod_uid, container_id=container_id)


def _with_dashes(uid: str) -> str:
    plain = uid.replace("_", "").replace("-", "")
    return "-".join((plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:]))
