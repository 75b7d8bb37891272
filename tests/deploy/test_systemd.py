"""The units: systemd accepts them, they expose little, and their times fit the policy's."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from autoscaler.errors import EXIT_BAD_INPUT
from autoscaler.policy.load import parse
from lb.settings import LbSettings
from tests.deploy.conftest import DEPLOY

UNITS = DEPLOY / "systemd"
EXPOSURE = 2.0
"""Highest exposure by `systemd-analyze security`, of 10: what is left is the network, /proc and the GPUs."""
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="asks systemd-analyze itself")

Unit = dict[str, dict[str, list[str]]]


def read(path: Path) -> Unit:
    """Sections and keys of a unit; a key may be said several times."""
    found: Unit = {}
    section: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("[") and line.endswith("]"):
            section = found.setdefault(line[1:-1], {})
        elif line and not line.startswith(("#", ";")):
            name, equals, value = line.partition("=")
            assert equals, f"{path.name}: {line!r} is no assignment"
            section.setdefault(name, []).append(value)
    return found


def seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)s", text)
    assert match, f"{text}: these units write times in seconds"
    return float(match[1])


@pytest.fixture
def service() -> dict[str, list[str]]:
    return read(UNITS / "tidegate.service")["Service"]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as they would lie on a machine that has the programs they start."""
    for path in UNITS.glob("*.*"):
        if path.suffix in (".service", ".socket"):
            text = re.sub(r"^(Exec\w+=)/opt/\S+", r"\1/bin/true", path.read_text(), flags=re.MULTILINE)
            (tmp_path / path.name.replace("@.", "@one.")).write_text(text)
    return tmp_path


@needs_systemd
def test_systemd_accepts_the_units(installed: Path) -> None:
    units = sorted(str(path) for path in installed.iterdir())
    assert len(units) == 3
    ran = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    complaints = [line for line in ran.stderr.splitlines() if str(installed) in line or "tidegate" in line]
    assert (ran.returncode, complaints) == (0, [])


@needs_systemd
def test_a_mistake_in_a_unit_would_be_seen(installed: Path) -> None:
    unit = installed / "tidegate.service"
    unit.write_text(unit.read_text().replace("NoNewPrivileges=", "NoNewPrivilege="))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "NoNewPrivilege" in ran.stderr


@needs_systemd
def test_the_service_exposes_little(installed: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE * 10:.0f}"]
    command.append(str(installed / "tidegate.service"))
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-200:]
    exposure = re.search(r"exposure level for tidegate.service: ([\d.]+)", ran.stdout)
    assert exposure is not None
    assert float(exposure[1]) <= EXPOSURE


def test_what_reads_gpu_owners_exposes_no_more_than_that() -> None:
    """The drop-in adds one capability and takes nothing back."""
    added = read(UNITS / "gpu-owners.conf")
    assert added == {
        "Service": {"AmbientCapabilities": ["CAP_SYS_PTRACE"], "CapabilityBoundingSet": ["CAP_SYS_PTRACE"]}
    }


def test_it_is_notified_watched_reloaded_and_not_restarted_in_vain(service: dict[str, list[str]]) -> None:
    assert service["Type"] == ["notify"]
    assert seconds(service["WatchdogSec"][0]) >= 10, "a garbage collection or a slow disk is no hang"
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert service["Restart"] == ["on-failure"]
    assert service["RestartPreventExitStatus"] == [str(EXIT_BAD_INPUT)]


def test_it_may_drain_as_long_as_the_policies_say(service: dict[str, list[str]]) -> None:
    stop_s = seconds(service["TimeoutStopSec"][0])
    graces = [parse(path.read_text()).lb.timeouts.shutdown_s for path in (DEPLOY / "policies").glob("*.yaml")]
    assert len(graces) >= 3
    assert stop_s >= max(graces) + 10


def test_it_has_descriptors_for_the_default_number_of_clients(service: dict[str, list[str]]) -> None:
    assert int(service["LimitNOFILE"][0]) >= 2 * LbSettings().limits.connections + 64


def test_it_writes_only_its_state(service: dict[str, list[str]]) -> None:
    assert service["ProtectSystem"] == ["strict"]
    assert service["StateDirectory"] == ["tidegate"]
    assert "ReadWritePaths" not in service
    assert service["CapabilityBoundingSet"] == [""]


def test_its_user_is_the_one_that_sysusers_makes(service: dict[str, list[str]]) -> None:
    (line,) = [row for row in (UNITS / "tidegate.sysusers").read_text().splitlines() if not row.startswith("#")]
    kind, name, *_ = line.split()
    assert kind == "u"
    assert service["User"] == service["Group"] == [name]
    assert "DynamicUser" not in service, "a file cannot belong to a group that exists only while the service runs"


def test_the_socket_stands_where_the_policies_listen() -> None:
    (address,) = read(UNITS / "tidegate.socket")["Socket"]["ListenStream"]
    listens = {
        parse((DEPLOY / "policies" / name).read_text()).lb.listen for name in ("production.yaml", "gpu-nodes.yaml")
    }
    assert listens == {address}


def test_the_replica_template_outlives_the_controller() -> None:
    """An actuator ends only what it was told to end: no dependency may take a replica down with Tidegate."""
    unit = read(UNITS / "vllm@.service")
    bound = {"BindsTo", "PartOf", "Requires"} & set(unit["Unit"])
    assert not bound
    assert "${PORT}" in unit["Service"]["ExecStart"][0]
    rules = (UNITS / "tidegate.rules").read_text()
    assert 'subject.user === "tidegate"' in rules
    assert r"vllm@" in rules
