"""The shipped rights are enough for everything that Tidegate does, and none of them is more than that.

Tidegate's own code runs with the tokens of the shipped ServiceAccounts. Every call is recorded and none may be
forbidden. Then each verb on each resource is taken away by itself, and some recorded call must be refused for it.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.conftest import DEPLOY, built
from tests.deploy.kustomize import Manifest, build
from tests.kubernetes import journeys
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.journeys import Stage
from tests.kubernetes.manifests import apply, custom_resource, define, in_order, path_of
from tests.kubernetes.rights import Need, allowed, recorded

HOME = "tidegate"
RUNTIMES = "runtimes"
CONTROLLER = f"{HOME}:tidegate-controller"
BALANCER = f"{HOME}:tidegate-balancer"
Journey = Callable[[Stage], Coroutine[Any, Any, None]]

SHIPPED = built(DEPLOY / "kubernetes" / "overlays" / "production")
ROLES = {(one["kind"], one["metadata"]["name"]): one for one in SHIPPED if one["kind"] in ("Role", "ClusterRole")}
PARTS: dict[str, tuple[tuple[str, ...], str, tuple[Journey, ...]]] = {
    "balancer": (("tidegate-discovery",), BALANCER, (journeys.balancer_finds_replicas,)),
    "controller": (
        ("tidegate-controller", "tidegate-scaler"),
        CONTROLLER,
        (
            journeys.controller_leads,
            journeys.controller_scales_a_deployment,
            journeys.controller_evicts_what_a_lower_number_would_not_take,
            journeys.controller_scales_a_stateful_set,
            journeys.controller_clears_away_an_ended_pod,
            journeys.controller_hears_that_no_node_is_to_be_had,
        ),
    ),
    "headroom": (("tidegate-headroom",), CONTROLLER, (journeys.placeholders_hold_room, journeys.a_buffer_holds_room)),
    "karpenter": (("tidegate-karpenter",), CONTROLLER, (journeys.karpenter_releases_a_node,)),
    "cluster_api": (("tidegate-cluster-api",), CONTROLLER, (journeys.cluster_api_releases_a_node,)),
}
"""By part: its roles, who has them, and what it does with them. Parts are granted one at a time, beside the first two,
so that a right of one does not stand in for that of another."""
ALWAYS = {"tidegate-discovery", "tidegate-controller", "tidegate-scaler"}
DEFINITIONS = (
    custom_resource("autoscaling.x-k8s.io", "v1beta1", "CapacityBuffer"),
    custom_resource("karpenter.sh", "v1", "NodePool", scale=True, scope="Cluster"),
    custom_resource("cluster.x-k8s.io", "v1beta2", "MachineDeployment", scale=True),
    custom_resource("cluster.x-k8s.io", "v1beta2", "Machine"),
)


@dataclass(frozen=True)
class Right:
    """One verb on one resource, by one rule of one role."""

    part: str
    kind: str
    role: str
    rule: int
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.role}-{self.verb}-{self.resource}"


def rights() -> Iterator[Right]:
    for part, (names, _, _) in PARTS.items():
        for (kind, name), role in ROLES.items():
            for number, rule in enumerate(role["rules"]) if name in names else ():
                for resource in rule["resources"]:
                    yield from (Right(part, kind, name, number, resource, verb) for verb in rule["verbs"])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A cluster of its own, for rights of other tests would be in the way, with what is shipped for it applied."""
    cluster = Cluster(tmp_path_factory.mktemp("rbac"))
    try:
        cluster.start()
        for definition in DEFINITIONS:
            define(cluster, definition)
        kinds = {"Namespace", "PriorityClass", "ServiceAccount", "Role", "ClusterRole", "RoleBinding"}
        wanted = [one for one in SHIPPED if one["kind"] in kinds or one["metadata"]["name"] == "tidegate-controller"]
        for manifest in in_order(tuple(one for one in wanted if one["kind"] in {*kinds, "ClusterRoleBinding"})):
            _applied(cluster, manifest)
        _applied(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RUNTIMES}})
        for manifest in build(DEPLOY / "kubernetes" / "grants"):
            manifest["metadata"]["namespace"] = RUNTIMES
            _applied(cluster, manifest)
        path = f"/api/v1/namespaces/{RUNTIMES}/serviceaccounts/default"
        cluster.eventually(lambda: cluster.call("GET", path)[0] == 200, "the namespace of the runtimes")
        pods = {name: _as_mounted(cluster, name) for name in ("balancer", "controller")}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            patch.setenv("KUBERNETES_SERVICE_PORT", str(cluster.port))
            yield Stage(cluster, RUNTIMES, pods)
    finally:
        cluster.kill()


@pytest.fixture(scope="module")
def travelled(request: pytest.FixtureRequest, stage: Stage) -> Iterator[tuple[str, set[Need], list[str]]]:
    """One part with its rights granted and everything it does done: who, the calls, and those that were forbidden."""
    names, account, todo = PARTS[request.param]
    granted = [_binding(name) for name in names if name not in ALWAYS]
    for binding in granted:
        _applied(stage.cluster, binding)
    for need in (need for name in names for need in _samples(name)):
        stage.cluster.eventually(lambda need=need: allowed(stage.cluster, account, need), f"granted: {need}", 10)
    with recorded() as calls:
        for journey in todo:
            asyncio.run(_travel(stage, journey))
    yield account, calls.needs, calls.forbidden
    for binding in granted:
        assert stage.cluster.call("DELETE", path_of(binding))[0] == 200


def _samples(role: str) -> Iterator[Need]:
    """One call for each right of a role, to see that the authorizer has learned of its binding."""
    (found,) = (one for (kind, name), one in ROLES.items() if name == role and kind == "ClusterRole")
    bound = "" if any(one["kind"] == "ClusterRoleBinding" and _to(one) == role for one in SHIPPED) else RUNTIMES
    for rule in found["rules"]:
        for verb in rule["verbs"]:
            yield Need(verb, rule["apiGroups"][0], rule["resources"][0], bound, rule.get("resourceNames", ["any"])[0])


def _to(binding: Manifest) -> str:
    return str(binding["roleRef"]["name"])


async def _travel(stage: Stage, journey: Journey) -> None:
    try:
        await journey(stage)
    finally:
        await stage.close()


def _applied(cluster: Cluster, manifest: Manifest) -> None:
    status, answer = apply(cluster, manifest)
    assert status in (200, 201), answer


def _binding(role: str) -> Manifest:
    """As it is shipped, or, of a role for one namespace, as its comment says to make it."""
    for one in SHIPPED:
        if one["kind"] == "ClusterRoleBinding" and _to(one) == role:
            return one
    (scaler,) = (one for one in build(DEPLOY / "kubernetes" / "grants") if _to(one) == "tidegate-scaler")
    scaler["metadata"] = {"name": role, "namespace": RUNTIMES}
    scaler["roleRef"]["name"] = role
    return scaler


def _as_mounted(cluster: Cluster, component: str) -> Path:
    """What the kubelet would mount into a pod of that ServiceAccount."""
    folder = cluster.directory / component
    folder.mkdir()
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
    body["spec"] = {"audiences": ["https://kubernetes.default.svc"], "expirationSeconds": 3600}
    path = f"/api/v1/namespaces/{HOME}/serviceaccounts/tidegate-{component}/token"
    (folder / "token").write_text(cluster.create(path, body)["status"]["token"])
    (folder / "ca.crt").write_bytes(cluster.ca.read_bytes())
    (folder / "namespace").write_text(HOME)
    return folder


FOREIGN = (
    Need("get", "", "secrets", HOME, "tidegate-admin"),
    Need("list", "", "secrets", RUNTIMES, ""),
    Need("create", "", "pods", RUNTIMES, ""),
    Need("delete", "apps", "deployments", RUNTIMES, "llm"),
    Need("patch", "apps", "deployments", RUNTIMES, "llm"),
    Need("patch", "apps", "deployments/scale", "kube-system", "coredns"),
    Need("list", "", "pods", "kube-system", ""),
    Need("list", "", "pods", "", ""),
    Need("patch", "", "configmaps", HOME, "tidegate-controller"),
    Need("update", "coordination.k8s.io", "leases", HOME, "another"),
    Need("delete", "", "nodes", "", "gpu-0"),
    Need("patch", "", "nodes", "", "gpu-0"),
    Need("create", "rbac.authorization.k8s.io", "clusterrolebindings", "", ""),
    Need("impersonate", "", "users", "", "admin"),
)


@pytest.mark.parametrize("need", FOREIGN, ids=str)
@pytest.mark.parametrize("account", [BALANCER, CONTROLLER])
def test_what_nobody_needs_is_not_granted(stage: Stage, account: str, need: Need) -> None:
    assert not allowed(stage.cluster, account, need)


@pytest.mark.parametrize(
    "need",
    [Need("patch", "", "pods", RUNTIMES, "a"), Need("patch", "apps", "deployments/scale", RUNTIMES, "llm")],
    ids=str,
)
def test_the_balancer_changes_nothing(stage: Stage, need: Need) -> None:
    assert not allowed(stage.cluster, BALANCER, need)
    assert allowed(stage.cluster, CONTROLLER, need)


@pytest.mark.parametrize("travelled", list(PARTS), indirect=True, scope="module")
def test_the_shipped_rights_are_enough(travelled: tuple[str, set[Need], list[str]]) -> None:
    _, needs, forbidden = travelled
    assert needs
    assert forbidden == []


@pytest.mark.parametrize(
    ("travelled", "right"), [(one.part, one) for one in rights()], indirect=["travelled"], ids=str, scope="module"
)
def test_no_right_is_more_than_is_needed(
    stage: Stage, travelled: tuple[str, set[Need], list[str]], right: Right
) -> None:
    """Without it the API server refuses a call that was made; with it again, it does not."""
    account, needs, _ = travelled
    role = ROLES[right.kind, right.role]
    less = copy.deepcopy(role)
    rule = less["rules"][right.rule]
    kept = [verb for verb in rule["verbs"] if verb != right.verb]
    others = [resource for resource in rule["resources"] if resource != right.resource]
    less["rules"][right.rule : right.rule + 1] = [
        *([{**rule, "resources": [right.resource], "verbs": kept}] if kept else []),
        *([{**rule, "resources": others}] if others else []),
    ]
    about = [need for need in sorted(needs) if (need.verb, need.resource) == (right.verb, right.resource)]
    assert about, f"nothing asks to {right.verb} {right.resource}"
    assert all(allowed(stage.cluster, account, need) for need in about)
    path = path_of(role)
    stage.cluster.call("PATCH", path, {"rules": less["rules"]}, "application/merge-patch+json")
    try:
        stage.cluster.eventually(
            lambda: not all(allowed(stage.cluster, account, need) for need in about),
            f"without the right to {right.verb} {right.resource} one of these is refused: {', '.join(map(str, about))}",
            5,
        )
    finally:
        stage.cluster.call("PATCH", path, {"rules": role["rules"]}, "application/merge-patch+json")
        stage.cluster.eventually(
            lambda: all(allowed(stage.cluster, account, need) for need in about), "the right is back"
        )


def test_every_shipped_role_is_looked_at() -> None:
    assert {name for _, name in ROLES} == {name for names, _, _ in PARTS.values() for name in names}
