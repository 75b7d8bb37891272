"""The loader of these tests agrees with kustomize itself, and every file of the manifests is in a kustomization."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.conftest import DEPLOY, OVERLAYS
from tests.deploy.kustomize import Manifest, build, key

KUBERNETES = DEPLOY / "kubernetes"
KUSTOMIZATIONS = sorted(path.parent for path in KUBERNETES.rglob("kustomization.yaml"))


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="compares with kubectl's kustomize, which is not installed")
@pytest.mark.parametrize("folder", [*OVERLAYS, KUBERNETES / "grants"], ids=lambda path: str(path.name))
def test_the_loader_makes_what_kustomize_makes(folder: Path) -> None:
    ran = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
    theirs = {key(manifest): manifest for manifest in yaml.safe_load_all(ran.stdout)}
    assert {key(manifest): manifest for manifest in build(folder)} == theirs


def test_nothing_is_defined_twice(manifests: tuple[Manifest, ...]) -> None:
    keys = [key(manifest) for manifest in manifests]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_a_kustomization_names_every_file_beside_it(folder: Path) -> None:
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text())
    named = set(settings.get("resources", ()))
    named |= {name for generator in settings.get("configMapGenerator", ()) for name in generator["files"]}
    beside = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert beside <= named, f"nobody applies {sorted(beside - named)}"
    folders = {path.parent.name for path in folder.glob("*/kustomization.yaml")}
    assert folders <= named, f"nobody applies {sorted(folders - named)}"


def test_every_component_is_in_an_overlay() -> None:
    used = set()
    for overlay in OVERLAYS:
        settings = yaml.safe_load((overlay / "kustomization.yaml").read_text())
        used |= {(overlay / name).resolve() for name in settings.get("components", ())}
    assert used == {path.parent for path in (KUBERNETES / "components").glob("*/kustomization.yaml")}
