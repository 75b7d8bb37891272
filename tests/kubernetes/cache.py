"""Where the built control plane lies: one folder per Go module, named after what it is built from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

MODULES = Path(__file__).with_name("modules")

PROGRAMS: dict[str, tuple[str, ...]] = {
    "etcd": ("etcd",),
    "kwok": ("kwok", "stages"),
    "k8s": ("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    "karpenter": ("karpenter-kwok", "crds"),
}
"""What each module's folder holds once it is built; the quick ones first."""


def cache_folder() -> Path:
    """`TIDEGATE_KUBERNETES_CACHE`, or a folder of the user's cache."""
    chosen = os.environ.get("TIDEGATE_KUBERNETES_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate" / "kubernetes"


def folder(module: str) -> Path:
    """A module's own folder: another `go.mod` or `go.sum` is another folder, so nothing stale is ever started."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((MODULES / f"tools-{module}" / name).read_bytes())
    return cache_folder() / f"{module}-{digest.hexdigest()[:12]}"


def program(name: str) -> Path:
    """Where a program or a folder of manifests lies once it is built. Raises KeyError for an unknown one."""
    for module, names in PROGRAMS.items():
        if name in names:
            return folder(module) / name
    raise KeyError(name)


def missing() -> list[str]:
    """Modules that are not built."""
    return [module for module, names in PROGRAMS.items() if not all((folder(module) / name).exists() for name in names)]
