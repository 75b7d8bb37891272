"""The Dockerfile against what it copies, what it starts and what the manifests expect of it."""

from __future__ import annotations

import re
import tomllib

from tests.deploy.conftest import DEPLOY, OVERLAYS, built
from tests.deploy.kustomize import containers, pod_spec

ROOT = DEPLOY.parent
LINES = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text()).splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions(name: str) -> list[str]:
    """Arguments of every instruction of a kind, in order."""
    return [line.removeprefix(name).strip() for line in LINES if line.startswith(f"{name} ")]


def test_every_package_is_copied_and_let_through() -> None:
    copied = {word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    packages = {pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= copied
    assert {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]} <= copied
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignore[1] == "*", "all is left out that is not named"
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == copied


def test_it_names_no_registry_and_a_python_that_is_supported() -> None:
    stages = [line.split()[0] for line in instructions("FROM")]
    assert all("/" not in image for image in stages)
    assert len({name.partition("-")[0] for name in stages}) == 1, "what is compiled in one stage runs in the other"
    (default,) = [line.partition("=")[2] for line in instructions("ARG") if line.startswith("PYTHON=")]
    supported = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if ":: 3." in line]
    assert default in supported


def test_it_runs_as_the_user_that_the_manifests_name() -> None:
    (user,) = instructions("USER")
    specs = [pod_spec(manifest) for overlay in OVERLAYS for manifest in built(overlay)]
    ids = {(one["securityContext"]["runAsUser"], one["securityContext"]["runAsGroup"]) for one in specs if one}
    assert ids == {tuple(map(int, user.split(":")))}


def test_it_starts_what_the_project_installs_and_says_its_ports() -> None:
    (entry,) = instructions("ENTRYPOINT")
    assert entry == '["tidegate"]'
    assert "tidegate" in PROJECT["project"]["scripts"]
    (exposed,) = instructions("EXPOSE")
    used = {
        port["containerPort"]
        for overlay in OVERLAYS
        for manifest in built(overlay)
        for container in containers(manifest)
        for port in container["ports"]
        if container["args"][0] == "run"
    }
    assert {int(port) for port in exposed.split()} == used


def test_it_writes_only_where_the_manifests_mount_something() -> None:
    """The root file system is read-only there."""
    for manifest in (manifest for overlay in OVERLAYS for manifest in built(overlay)):
        for container in containers(manifest):
            given = {variable["name"]: variable.get("value") for variable in container.get("env", ())}
            mounted = {mount["mountPath"] for mount in container.get("volumeMounts", ())}
            if container["args"][0] == "run":
                assert "/tmp" in mounted
                assert given.get("STATE_DIRECTORY") in {None, *mounted}
