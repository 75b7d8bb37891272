"""Replicas from the Kubernetes API: `replicas` reads objects and is pure, `source` watches them."""

from lb.sources.kubernetes.source import KubernetesReplicas

__all__ = ["KubernetesReplicas"]
