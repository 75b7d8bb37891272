"""What the manifests say of each other and of the policies in them: names, ports, labels, rights, graces."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler.policy.load import load, parse
from autoscaler.policy.pools import Mode
from autoscaler.policy.schema import Policy
from lb.address import parse_address
from lb.admin.guard import OPEN_PATHS
from lb.endpoint import parse_url
from tests.deploy.conftest import DEPLOY
from tests.deploy.kustomize import Manifest, build, containers, pod_spec

POLICIES = sorted(DEPLOY.rglob("policy.yaml")) + sorted((DEPLOY / "policies").glob("*.yaml"))
POLICY_FOLDER = "/etc/tidegate"


def of_kind(manifests: tuple[Manifest, ...], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def workloads(manifests: tuple[Manifest, ...]) -> Iterator[tuple[Manifest, Manifest]]:
    """Each workload with its only container."""
    for manifest in manifests:
        if pod_spec(manifest) is not None:
            (container,) = containers(manifest)
            yield manifest, container


def policy_of(manifests: tuple[Manifest, ...], workload: Manifest) -> Policy | None:
    """The policy that a workload reads; None: it reads none."""
    spec = pod_spec(workload)
    assert spec is not None
    for volume in spec.get("volumes", ()):
        for source in volume.get("projected", {}).get("sources", ()):
            if "configMap" in source:
                name = source["configMap"]["name"]
                (found,) = [one for one in of_kind(manifests, "ConfigMap") if one["metadata"]["name"] == name]
                return parse(found["data"]["policy.yaml"])
    return None


def matches(selector: Manifest, labels: Manifest) -> bool:
    return selector.items() <= labels.items()


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_shipped_policy_decodes(path: Path) -> None:
    assert load(path).policy.lb.listen


def test_each_workload_selects_its_own_pods_and_no_others(manifests: tuple[Manifest, ...]) -> None:
    found = [manifest for manifest, _ in workloads(manifests)]
    assert found
    for workload in found:
        selector = workload["spec"]["selector"]["matchLabels"]
        chosen = [one for one in found if matches(selector, one["spec"]["template"]["metadata"]["labels"])]
        assert chosen == [workload]


def test_each_service_budget_and_policy_selects_one_workload(manifests: tuple[Manifest, ...]) -> None:
    found = [manifest for manifest, _ in workloads(manifests)]
    for manifest in of_kind(manifests, "Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = manifest["spec"]
        selector = spec.get("selector") or spec["podSelector"]
        selector = selector.get("matchLabels", selector)
        chosen = [one for one in found if matches(selector, one["spec"]["template"]["metadata"]["labels"])]
        assert len(chosen) == 1, f"{manifest['kind']} {manifest['metadata']['name']} selects {len(chosen)} workloads"
        ports = {port["name"] for port in containers(chosen[0])[0]["ports"]}
        named = {port["targetPort"] for port in spec.get("ports", ())}
        named |= {port["port"] for rule in spec.get("ingress", ()) for port in rule["ports"]}
        assert named <= ports


def test_the_monitor_finds_every_pod_that_has_metrics(manifests: tuple[Manifest, ...]) -> None:
    for monitor in of_kind(manifests, "PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["path"] in OPEN_PATHS, "Prometheus brings no token"
        selector = monitor["spec"]["selector"]["matchLabels"]
        for workload, container in workloads(manifests):
            if policy_of(manifests, workload) is not None:
                assert matches(selector, workload["spec"]["template"]["metadata"]["labels"])
                assert endpoint["port"] in {port["name"] for port in container["ports"]}


def test_ports_are_those_of_the_policy(manifests: tuple[Manifest, ...]) -> None:
    for workload, container in workloads(manifests):
        policy = policy_of(manifests, workload)
        if policy is None:
            continue
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        host, admin = parse_address(policy.lb.admin.listen)
        assert (host, admin) == ("0.0.0.0", ports["admin"])
        host, data = parse_address(policy.lb.listen)
        if "http" in ports:
            assert (host, data) == ("0.0.0.0", ports["http"])
        else:
            assert host == "127.0.0.1", "a data plane that nobody declares is open to nobody"
        keda = policy.scaling.keda
        assert (keda is None) == ("keda" not in ports), "declared where it answers, and nowhere else"
        if keda is not None:
            assert parse_address(keda.listen) == ("0.0.0.0", ports["keda"])


def test_sizes_are_told_to_the_operator_of_keda_and_nobody_else(manifests: tuple[Manifest, ...]) -> None:
    """The service has neither TLS nor a token. Rules of network policies add up, so each that opens the port counts."""
    rules = [
        rule
        for one in of_kind(manifests, "NetworkPolicy")
        for rule in one["spec"]["ingress"]
        if "ports" not in rule or "keda" in {port["port"] for port in rule["ports"]}
    ]
    services = [
        one for one in of_kind(manifests, "Service") if "keda" in {port["name"] for port in one["spec"]["ports"]}
    ]
    told = [one for one, container in workloads(manifests) if "keda" in {port["name"] for port in container["ports"]}]
    assert len(rules) == len(services) == len(told) <= 1
    for rule, service, workload in zip(rules, services, told, strict=True):
        # One peer with both selectors; two peers would be this namespace's pods of that name, or all pods of that one.
        assert rule["from"] == [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}},
                "podSelector": {"matchLabels": {"app": "keda-operator"}},
            }
        ]
        assert workload["spec"]["replicas"] == 1, "a second one would wait for a lease and have nothing to tell"
        policy = policy_of(manifests, workload)
        assert policy is not None
        assert {pool.mode for pool in policy.scaling.pools} == {Mode.ADVISE}, "no other mode's size is told"
        assert {pool.actuator.type for pool in policy.scaling.pools} == {"dry_run"}, "the number is KEDA's"
        (port,) = service["spec"]["ports"]
        address = f"{service['metadata']['name']}.{service['metadata']['namespace']}:{port['port']}"
        assert f'scalerAddress: "{address}"' in (DEPLOY.parent / "autoscaler" / "README.md").read_text()


def test_probes_ask_what_answers_without_a_token(manifests: tuple[Manifest, ...]) -> None:
    for workload, container in workloads(manifests):
        if policy_of(manifests, workload) is None:
            continue
        probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
        assert {probe["port"] for probe in probes.values()} == {"admin"}
        assert {probe["path"] for probe in probes.values()} <= OPEN_PATHS
        assert probes["readiness"]["path"] == "/readyz"
        assert probes["liveness"]["path"] == "/healthz", "a draining pod is not ready, but it must not be killed for it"


def test_a_pod_may_drain_as_long_as_its_policy_says(manifests: tuple[Manifest, ...]) -> None:
    for workload, container in workloads(manifests):
        policy, spec = policy_of(manifests, workload), pod_spec(workload)
        if policy is None:
            continue
        assert spec is not None
        waits_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert spec["terminationGracePeriodSeconds"] >= waits_s + policy.lb.timeouts.shutdown_s + 10


def test_a_policy_is_mounted_so_that_a_change_arrives(manifests: tuple[Manifest, ...]) -> None:
    """A subPath mount never changes in a running pod, and secrets must lie beside the policy, unreadable to others."""
    seen = 0
    for workload, container in workloads(manifests):
        if policy_of(manifests, workload) is None:
            continue
        seen += 1
        spec = pod_spec(workload)
        assert spec is not None
        (mount,) = [one for one in container["volumeMounts"] if one["mountPath"] == POLICY_FOLDER]
        assert "subPath" not in mount
        assert mount["readOnly"] is True
        (volume,) = [one for one in spec["volumes"] if one["name"] == mount["name"]]
        assert volume["projected"]["defaultMode"] & 0o007 == 0
        paths = {
            item["path"]
            for source in volume["projected"]["sources"]
            for item in source.get("secret", {}).get("items", ())
        }
        policy = policy_of(manifests, workload)
        assert policy is not None
        assert policy.lb.admin.token is not None
        assert policy.lb.admin.token.removeprefix("file:") in paths
        assert container["args"] == ["run", "--policy", f"{POLICY_FOLDER}/policy.yaml"]
    assert seen >= 1


def test_pods_have_no_rights_on_their_node(manifests: tuple[Manifest, ...]) -> None:
    """The `restricted` Pod Security Standard, which the namespace enforces, and a read-only root on top."""
    for workload, container in workloads(manifests):
        spec = pod_spec(workload)
        assert spec is not None
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all("hostPath" not in volume for volume in spec.get("volumes", ()))
    (namespace,) = of_kind(manifests, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_resources_are_bounded_and_latency_is_not_throttled(manifests: tuple[Manifest, ...]) -> None:
    for _, container in workloads(manifests):
        resources = container["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}
        assert set(resources["limits"]) == {"memory"}, "a CPU limit stops the event loop for tens of milliseconds"


UNITS = {"Mi": 1 << 20, "Gi": 1 << 30}
CONTROLLER_BYTES = 512 << 20
"""Of a controller without what forecasts: three times what it had with 45 days of ten pools."""


def limit_of(container: Manifest) -> int:
    """In bytes."""
    written = container["resources"]["limits"]["memory"]
    return int(written[:-2]) * UNITS[written[-2:]]


def test_what_forecasts_reaches_its_own_bound_before_that_of_the_pod(manifests: tuple[Manifest, ...]) -> None:
    """Past `forecast.memory` one pool goes without forecast; past the pod's limit the kernel ends whatever it likes."""
    (balancing,) = [one for one in build(DEPLOY / "kubernetes" / "base") if one["kind"] == "DaemonSet"]
    balancer_bytes = limit_of(containers(balancing)[0])
    forecasting = 0
    for workload, container in workloads(manifests):
        policy = policy_of(manifests, workload)
        if policy is None or not (policy.forecast.enabled and policy.scaling.pools):
            continue
        forecasting += 1
        serves = "http" in {port["name"] for port in container["ports"]}
        rest = balancer_bytes if serves else CONTROLLER_BYTES
        assert limit_of(container) >= policy.forecast.memory_bytes + rest
    assert forecasting == 1, "the controller, and no balancer beside it"


def test_accounts_classes_and_roles_that_are_named_exist(manifests: tuple[Manifest, ...]) -> None:
    exists = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    for workload, _ in workloads(manifests):
        spec = pod_spec(workload)
        assert spec is not None
        if "priorityClassName" in spec:
            assert ("PriorityClass", spec["priorityClassName"]) in exists
        if "serviceAccountName" in spec:
            assert ("ServiceAccount", spec["serviceAccountName"]) in exists
        else:
            assert spec["automountServiceAccountToken"] is False
    for binding in of_kind(manifests, "RoleBinding", "ClusterRoleBinding"):
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in exists
        assert all((subject["kind"], subject["name"]) in exists for subject in binding["subjects"])


def test_no_role_has_a_wildcard_or_reads_secrets(manifests: tuple[Manifest, ...]) -> None:
    roles = of_kind(manifests, "Role", "ClusterRole")
    assert roles
    for rule in (rule for role in roles for rule in role["rules"]):
        assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert "secrets" not in rule["resources"]


def test_images_have_this_version_and_no_registry(manifests: tuple[Manifest, ...]) -> None:
    """The registry is the user's; `latest` would change under a running cluster."""
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    for _, container in workloads(manifests):
        assert container["image"] == f"tidegate:{project['version']}"


def test_whoever_may_run_twice_has_a_lease(manifests: tuple[Manifest, ...]) -> None:
    """A roll-out has two for a while, too, where it starts the new one first. Where KEDA acts nobody of ours does."""
    found = [one for one, _ in workloads(manifests) if one["kind"] == "Deployment"]
    for workload in found:
        policy = policy_of(manifests, workload)
        assert policy is not None
        assert (policy.scaling.lease is None) == (policy.scaling.keda is not None)
    assert found


def test_a_controller_hears_of_all_balancers_and_they_of_its_drains(manifests: tuple[Manifest, ...]) -> None:
    """It asks a headless Service, with their token; they count misses for the same pools and read what pods say."""
    policies = [(one, policy) for one, _ in workloads(manifests) if (policy := policy_of(manifests, one)) is not None]
    balancers = [(one, policy) for one, policy in policies if one["kind"] == "DaemonSet"]
    controllers = [policy for one, policy in policies if one["kind"] == "Deployment"]
    assert len(controllers) == 1
    asked = controllers[0].scaling.balancers
    assert bool(asked) == bool(balancers), "what balances elsewhere is asked, and nobody else"
    for (balancer, policy), named in zip(balancers, asked, strict=True):
        host, port, _, _ = parse_url(named.url)
        (service,) = [one for one in of_kind(manifests, "Service") if one["metadata"]["name"] == host]
        assert service["spec"]["clusterIP"] == "None", "any other name stands for one of them at a time"
        assert [one["port"] for one in service["spec"]["ports"]] == [port]
        assert matches(service["spec"]["selector"], balancer["spec"]["template"]["metadata"]["labels"])
        assert named.token == policy.lb.admin.token
        theirs = {one.name: one for one in policy.scaling.pools}
        for pool in controllers[0].scaling.pools:
            assert theirs[pool.name].mode is Mode.OBSERVE
            assert (theirs[pool.name].models, theirs[pool.name].objective) == (pool.models, pool.objective)
        assert all(source.pods is not None for source in policy.lb.kubernetes)
