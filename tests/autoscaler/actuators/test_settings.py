"""What a policy may say of actuators, and what it is told when it says something else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autoscaler.actuators import ACTUATORS
from autoscaler.policy.actuators import ProcessSettings, fill
from autoscaler.policy.load import parse
from lb.yaml_document import DocumentError

README = Path(__file__).parents[3] / "autoscaler" / "actuators" / "README.md"


@pytest.mark.parametrize(
    ("actuator", "problem"),
    [
        ("{type: process, command: [vllm, serve]}", "neither command nor environment mentions {port}"),
        ("{type: process, command: [vllm, '{prot}']}", "{prot} is no placeholder; there are {name}, {pool}"),
        ("{type: process, command: []}", "command"),
        ("{type: process, command: [a, '{port}'], ports: [9, 8]}", "ports = [9, 8] must go from a lower to a higher"),
        ("{type: process, command: [a, '{port}'], ports: [0, 8]}", "or be [0, 0]"),
        ("{type: process, command: [a, '{port}'], gpus: [1, 1]}", "gpus lists a card twice"),
        ("{type: process, command: [a, '{port}'], gpus: ['a b']}", "gpus"),
        ("{type: process, command: [a, '{port}'], environment: {'A=B': x}}", "environment"),
        ("{type: process, command: [a, '{port}'], ready_path: health}", "ready_path"),
        ("{type: systemd, unit: vllm.service}", "is no template; write one such as vllm@{name}.service"),
        ("{type: systemd, unit: 'vllm@{name};rm.service'}", "is no template"),
        ("{type: systemd, unit: 'vllm@{name}.service', bus: tcp}", "bus"),
        ("{type: exec, command: ['']}", "names no program"),
        ("{type: exec, command: [x], timeout: 11s}", "timeout"),
        ("{type: webhook, url: 'ftp://x'}", "does not start with http://"),
        ("{type: webhook, url: 'http://u:p@x'}", "must not carry a user or password"),
        ("{type: webhook, url: 'http://x', token: hunter2}", "token = (hidden): must be a secret reference"),
        ("{type: helicopter}", "helicopter"),
    ],
)
def test_mistakes_are_named(actuator: str, problem: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(f"scaling:\n  pools:\n    - name: a\n      actuator: {actuator}\n")
    told = " ".join(one.text("p.yaml") for one in caught.value.problems)
    assert problem in told
    assert "hunter2" not in told


def test_a_replica_may_learn_its_port_from_its_environment() -> None:
    settings = ProcessSettings.model_validate({"type": "process", "command": ["x"], "environment": {"P": "{port}"}})
    assert settings.ports == (20_000, 20_999)


def test_only_placeholders_are_filled_in() -> None:
    text = '{"a": {"b": "{name}"}} {} {other} ${name} {NAME}'
    assert fill(text, {"name": "n"}) == '{"a": {"b": "n"}} {} {other} $n {NAME}'


def test_the_recipes_are_policies() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    types = set()
    for block in blocks:
        text = block
        if text.startswith("actuator:"):
            text = f"scaling:\n  pools:\n    - name: a\n      {text}"
        (one,) = parse(text).scaling.pools
        types.add(one.actuator.type)
    assert types == {"process", "systemd", "exec", "webhook"}


def test_every_actuator_has_a_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", README.read_text(), re.MULTILINE)
    assert set(rows) == set(ACTUATORS)
