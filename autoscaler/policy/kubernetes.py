"""Settings of pools whose replicas are pods."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lb.settings.durations import Seconds
from lb.settings.proxy import Section

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
Namespace = Annotated[str, Field(max_length=63, pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$")]
GPU = "nvidia.com/gpu"


class WorkloadSettings(Section):
    """One object with the scale subresource."""

    name: Name
    """Its name."""
    resource: Annotated[str, Field(pattern=r"^([a-z0-9.-]+/v[a-z0-9]+/)?[a-z0-9-]+$")] = "deployments"
    """`deployments`, `statefulsets`, `replicasets`, or `group/version/plural` of anything else that has the scale
    subresource, such as `leaderworkerset.x-k8s.io/v1/leaderworkersets`."""
    kind: str = "default"
    """Kind of replica (of the pool's `kinds`) that its pods are."""
    victims: Literal["cost", "ordinal"] | None = None
    """Which pod goes when it is scaled down: the one with the lowest `controller.kubernetes.io/pod-deletion-cost`
    (ReplicaSets and what is made of them), or the one with the highest ordinal (StatefulSets). None: by `resource`."""

    @property
    def by_ordinal(self) -> bool:
        return self.victims == "ordinal" if self.victims is not None else self.resource == "statefulsets"


class PlaceholderNodes(Section):
    """Room for more replicas, held by pods that sleep and give way: what cluster-autoscaler and Karpenter both see."""

    type: Literal["placeholder"]
    """Which way of having nodes ahead this is."""
    deployment: Name
    """Deployment of pause pods, made and kept by the controller in the pool's namespace; one per pool."""
    priority_class: Name = "tidegate-placeholder"
    """PriorityClass with a value from -10 (below it cluster-autoscaler adds no nodes) to -1. It must exist."""
    image: Annotated[str, Field(min_length=1)] = "registry.k8s.io/pause:3.10"
    """What the pods run: any image that sleeps."""
    headroom: Annotated[int, Field(ge=0, le=1000)] = 1
    """Replicas that find a node ready at any time."""


class BufferNodes(Section):
    """The same without pods, where the cluster has CapacityBuffer objects."""

    type: Literal["capacity_buffer"]
    """Which way of having nodes ahead this is."""
    buffer: Name
    """CapacityBuffer whose `spec.replicas` the controller writes; it must exist and name the pod template."""
    headroom: Annotated[int, Field(ge=0, le=1000)] = 1
    """Replicas that find a node ready at any time."""


class StaticNodes(Section):
    """A group of nodes of a fixed number, which the controller sets itself."""

    type: Literal["karpenter", "cluster_api"]
    """`karpenter`: a NodePool with `spec.replicas` (gate StaticCapacity); `cluster_api`: a MachineDeployment."""
    name: Name
    """Name of the NodePool or MachineDeployment."""
    namespace: Namespace = ""
    """Namespace of a MachineDeployment; empty: that of the pool."""
    replicas_per_node: Annotated[int, Field(ge=1, le=64)] = 1
    """Replicas that one node holds."""
    headroom: Annotated[int, Field(ge=0, le=1000)] = 0
    """Nodes beyond those that the replicas need."""
    max_nodes: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Never more nodes, whatever the pool wants."""


NodeSettings = Annotated[PlaceholderNodes | BufferNodes | StaticNodes, Field(discriminator="type")]


class KubernetesSettings(Section):
    """Replicas are pods of Deployments, StatefulSets, or anything else with the scale subresource."""

    type: Literal["kubernetes"]
    """Which actuator this is."""
    workloads: Annotated[tuple[WorkloadSettings, ...], Field(min_length=1)]
    """One object for each kind of replica."""
    namespace: Namespace = ""
    """Where they are; empty: the controller's own namespace."""
    kubeconfig: str | None = None
    """File for a controller outside of the cluster; None: the pod's ServiceAccount."""
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """Port on which pods answer; None: the container port named `http`, or the only one."""
    field_manager: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^tidegate[ -~]*$")] = "tidegate"
    """Name under which changes are made. Another controller that is not of the same group needs another name, so that
    the two can see each other."""
    override: tuple[str, ...] = ()
    """Field managers that may be overruled although they usually insist, such as `argocd-controller` where the
    application ignores `/spec/replicas`."""
    full_s: Annotated[Seconds, Field(gt=0)] = 120.0
    """A kind whose pod has been unschedulable for this long is taken to be sold out; node autoscalers that cannot help
    usually say so earlier, and those that can have a node under way by then."""
    crashes: Annotated[int, Field(ge=1)] = 3
    """Restarts after which a pod that never became ready counts as failed."""
    pull_s: Annotated[Seconds, Field(gt=0)] = 120.0
    """A pod whose image still cannot be pulled after this long counts as failed; registries have short troubles."""
    others_s: Annotated[Seconds, Field(ge=0)] = 1800.0
    """A number of replicas that somebody else set longer ago than this is not reported as their present wish."""
    gpu_resource: str = GPU
    """Name of the resource that GPUs are counted in."""
    weights_condition: str | None = None
    """Pod condition that says that the weights are loaded; None: there is none, only readiness."""
    nodes: NodeSettings | None = None
    """How nodes are there before their pods; None: whoever else takes care of nodes does so when pods are pending."""

    @model_validator(mode="after")
    def _kinds(self) -> KubernetesSettings:
        kinds = [one.kind for one in self.workloads]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"workloads must be of different kinds, not {', '.join(kinds)}")
        return self
