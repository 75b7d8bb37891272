"""The part of kustomize that deploy/kubernetes uses, so that its tests need no tool.

Known: resources, components, namespace, labels, images, configMapGenerator (create and merge, without name suffix),
JSON patches. Anything else in a kustomization is an error here. Where kubectl is installed, test_kustomize.py compares
the two.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

CLUSTER_SCOPED = {"Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
KNOWN = {
    "apiVersion", "kind", "namespace", "resources", "components", "labels", "images", "configMapGenerator",
    "generatorOptions", "patches",
}  # fmt: skip


def build(folder: Path) -> list[Manifest]:
    """The manifests of a kustomization, in no particular order."""
    return _accumulate(folder, [])


def documents(path: Path) -> Iterator[Manifest]:
    """The manifests of one file. Through JSON, so that two places with one anchor do not share an object."""
    return (json.loads(json.dumps(one)) for one in yaml.safe_load_all(path.read_text()) if one is not None)


def _accumulate(folder: Path, below: list[Manifest]) -> list[Manifest]:
    settings: Manifest = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(settings) - KNOWN
    assert not unknown, f"{folder}: this loader does not know {sorted(unknown)}"
    found = list(below)
    for name in settings.get("resources", ()):
        entry = folder / name
        found += build(entry.resolve()) if entry.is_dir() else list(documents(entry))
    for generator in settings.get("configMapGenerator", ()):
        _generate(found, generator, settings.get("generatorOptions", {}), folder)
    for name in settings.get("components", ()):
        found = _accumulate((folder / name).resolve(), found)
    for patch in settings.get("patches", ()):
        _patch(found, patch, folder)
    for entry in settings.get("labels", ()):
        assert set(entry) == {"pairs"}, "labels that go into selectors would change what a Deployment selects"
        for manifest in found:
            manifest["metadata"].setdefault("labels", {}).update(entry["pairs"])
    for image in settings.get("images", ()):
        _tag(found, image)
    if "namespace" in settings:
        _place(found, settings["namespace"])
    return found


def _generate(found: list[Manifest], generator: Manifest, options: Manifest, folder: Path) -> None:
    assert options.get("disableNameSuffixHash") is True, "with a suffix each change of a policy restarts every pod"
    # By the last part of its path, as kustomize names it.
    data = {Path(name).name: (folder / name).read_text() for name in generator["files"]}
    if generator.get("behavior", "create") == "merge":
        (existing,) = [one for one in found if one["kind"] == "ConfigMap" and _name(one) == generator["name"]]
        existing["data"].update(data)
        return
    metadata: Manifest = {"name": generator["name"]}
    if "labels" in options:
        metadata["labels"] = dict(options["labels"])
    found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def _patch(found: list[Manifest], patch: Manifest, folder: Path) -> None:
    target = patch["target"]
    chosen = [one for one in found if one["kind"] == target["kind"] and target.get("name", _name(one)) == _name(one)]
    assert chosen, f"{folder}: no manifest is {target}"
    for manifest in chosen:
        for operation in yaml.safe_load(patch["patch"]):
            _operate(manifest, operation)


def _operate(manifest: Manifest, operation: Manifest) -> None:
    *parents, last = operation["path"].removeprefix("/").split("/")
    place: Any = manifest
    for step in parents:
        key = step.replace("~1", "/").replace("~0", "~")
        place = place[int(key)] if isinstance(place, list) else place[key]
    last = last.replace("~1", "/").replace("~0", "~")
    if operation["op"] == "remove":
        del place[int(last) if isinstance(place, list) else last]
    elif isinstance(place, list):
        assert operation["op"] == "add"
        assert last == "-", "only appending is known"
        place.append(copy.deepcopy(operation["value"]))
    else:
        assert operation["op"] in ("add", "replace")
        assert operation["op"] == "add" or last in place, f"nothing to replace at {operation['path']}"
        place[last] = copy.deepcopy(operation["value"])


def _tag(found: list[Manifest], image: Manifest) -> None:
    for manifest in found:
        for container in containers(manifest):
            name = container["image"].partition(":")[0]
            if name == image["name"]:
                container["image"] = f"{image.get('newName', name)}:{image['newTag']}"


def _place(found: list[Manifest], namespace: str) -> None:
    """Also accounts that a binding names, if they are among the manifests; others are where they are."""
    accounts = {_name(one) for one in found if one["kind"] == "ServiceAccount"}
    for manifest in found:
        if manifest["kind"] == "Namespace":
            manifest["metadata"]["name"] = namespace
        elif manifest["kind"] not in CLUSTER_SCOPED:
            manifest["metadata"]["namespace"] = namespace
        for subject in manifest.get("subjects", ()):
            if subject["name"] in accounts:
                subject["namespace"] = namespace


def pod_spec(manifest: Manifest) -> Manifest | None:
    """The pod that a workload makes, or None."""
    if manifest["kind"] not in ("DaemonSet", "Deployment", "StatefulSet"):
        return None
    spec: Manifest = manifest["spec"]["template"]["spec"]
    return spec


def containers(manifest: Manifest) -> list[Manifest]:
    spec = pod_spec(manifest)
    return [] if spec is None else [*spec.get("initContainers", ()), *spec["containers"]]


def _name(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def key(manifest: Manifest) -> tuple[str, str, str]:
    """Kind, namespace and name: what no two manifests of one kustomization share."""
    return manifest["kind"], manifest["metadata"].get("namespace", ""), _name(manifest)
