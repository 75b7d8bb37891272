"""The `gpus:` section and `lb.peers`: written with units, refused with lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoscaler.policy.load import parse
from autoscaler.restart import gpu_restart_needed
from lb.yaml_document import DocumentError
from nvml.settings import NvmlSettings
from nvml.xid import XidAction

NO_SECRET = "must be a secret reference, env:NAME or file:NAME, and not the secret itself"


def lines(text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        parse(text)
    return [problem.text("p.yaml") for problem in caught.value.problems]


def test_what_is_not_said_is_read_with_defaults() -> None:
    assert parse("").gpus == NvmlSettings()
    assert parse("gpus: {driver: off}\n").gpus.driver == "off"


def test_names_without_units_values_with_them() -> None:
    text = """
gpus:
  library_path: /run/nvidia/driver/usr/lib/libnvidia-ml.so.1
  interval: 500ms
  deadline: 1m30s
  dcgm_names: true
  health:
    leak_floor: 512MiB
    drain_hold: 2m
    xid_actions: {13: ignore, 94: drain}
lb:
  peers:
    - {url: "http://gpu-1:9400", token: env:PEER_TOKEN, hosts: [10.0.0.1], stale: 10s}
"""
    policy = parse(text)
    gpus, health = policy.gpus, policy.gpus.health
    assert (gpus.library_path, gpus.interval_s, gpus.deadline_s) == (
        Path("/run/nvidia/driver/usr/lib/libnvidia-ml.so.1"), 0.5, 90.0,
    )  # fmt: skip
    assert (health.leak_floor_bytes, health.drain_hold_s) == (512 << 20, 120.0)
    assert health.xid_actions == {13: XidAction.IGNORE, 94: XidAction.DRAIN}
    (peer,) = policy.lb.peers
    assert (peer.url, peer.hosts, peer.interval_s, peer.stale_s) == ("http://gpu-1:9400", ("10.0.0.1",), 1.0, 10.0)


def test_every_mistake_is_named_with_its_line() -> None:
    text = """\
lb:
  peers:
    - {url: "http://10.0.0.2:9400", token: env:TOK, stale: 500ms}
    - {url: "10.0.0.2:9400", token: secret}
    - {url: "http://10.0.0.2:9400/", hosts: ["http://10.0.0.2"]}
gpus:
  interval: 2
  intervall: 2s
  driver: nvidea
  health:
    leak_floor: 1 potato
    drain_hold: 5
    xid_actions: {79: ignored, x: drain}
    vanished_after_samples: 0
"""
    assert lines(text) == [
        "p.yaml:3: lb.peers[0].stale = '500ms': is shorter than `interval` (1s)",
        f"p.yaml:4: lb.peers[1].token = (hidden): {NO_SECRET}",
        "p.yaml:4: lb.peers[1].url = '10.0.0.2:9400': does not start with http:// or https://; write http://host:port",
        "p.yaml:5: lb.peers[2].hosts[0] = 'http://10.0.0.2': must be a name or an IP address, with nothing around it",
        "p.yaml:5: lb.peers[2].url = 'http://10.0.0.2:9400/': this peer is listed twice, first on line 3",
        "p.yaml:7: gpus.interval = 2: has no unit; write it as a duration such as 2s",
        "p.yaml:8: gpus.intervall: unknown key; did you mean 'interval'?",
        "p.yaml:9: gpus.driver = 'nvidea': must be one of nvidia, fake, off; did you mean 'nvidia'?",
        "p.yaml:11: gpus.health.leak_floor = '1 potato': is not a size; write it like 1GiB, 512MiB or 1073741824",
        "p.yaml:12: gpus.health.drain_hold = 5: has no unit; write it as a duration such as 5s",
        "p.yaml:13: gpus.health.xid_actions.79 = 'ignored': must be 'ignore', 'degrade' or 'drain'",
        "p.yaml:13: gpus.health.xid_actions.x: must be a whole number",
        "p.yaml:14: gpus.health.vanished_after_samples = 0: must be greater than or equal to 1",
    ]


def test_values_that_contradict_are_named_by_what_the_file_calls_them() -> None:
    (line,) = lines("gpus:\n  interval: 5s\n  deadline: 1s\n")
    assert line == (
        "p.yaml:1: gpus: deadline is 1s and interval is 5s: readings would be stale before the next one; deadline "
        "must be at least interval"
    )


def test_what_waits_for_a_restart() -> None:
    running = NvmlSettings()
    assert gpu_restart_needed(running, NvmlSettings(interval_s=2.0, deadline_s=9.0)) == []
    assert gpu_restart_needed(running, NvmlSettings(driver="off", owners_refresh_s=3.0)) == [
        "gpus.driver needs a restart",
        "gpus.owners_refresh needs a restart",
    ]
