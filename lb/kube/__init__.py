"""The Kubernetes API: the only door to the `kubernetes` package.

`api.KubeApi` makes calls that have a deadline and a pace, `reflector.Reflector` keeps a copy of a collection up to
date. Nothing here knows what the objects mean: callers hand in paths and read dicts as the API documents them.
"""

from lb.kube.access import Access, Explicit, InCluster, KubeConfig
from lb.kube.api import Event, KubeApi, Listing, PatchKind
from lb.kube.errors import (
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    KubeError,
    NotFoundError,
    NotYetError,
    ThrottledError,
    UnauthorizedError,
    UnavailableError,
    UnreachableError,
)
from lb.kube.pace import Pace
from lb.kube.reflector import Reflector, ReflectorState
from lb.kube.shape import Metadata, Shape, shape_of

__all__ = [
    "Access", "ConflictError", "Event", "Explicit", "ForbiddenError", "GoneError", "InCluster", "InvalidError",
    "KubeApi", "KubeConfig", "KubeError", "Listing", "Metadata", "NotFoundError", "NotYetError", "Pace",
    "PatchKind", "Reflector", "ReflectorState", "Shape", "ThrottledError", "UnauthorizedError", "UnavailableError",
    "UnreachableError", "shape_of",
]  # fmt: skip
