"""Settings of what starts and ends a pool's replicas, one section for each kind of actuator."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, model_validator

from autoscaler.policy.kubernetes import KubernetesSettings
from lb.endpoint import parse_url
from lb.errors import SettingsError
from lb.settings.durations import Bytes, Seconds
from lb.settings.proxy import Section

PLACEHOLDERS = ("name", "pool", "kind", "port", "gpus")
"""What a command's words and variables may refer to, written `{name}`."""
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\-]+@\{name\}\.service\Z")

Command = Annotated[tuple[Annotated[str, Field(max_length=32_768)], ...], Field(min_length=1, max_length=1000)]
"""A program and its arguments; no shell reads them."""
_Card = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^[A-Za-z0-9/:_-]{1,100}$")]
Deadline = Annotated[Seconds, Field(gt=0, le=10)]
"""At most ten seconds: what cannot be seen for longer is not seen in this tick."""


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace `{name}` and its like by values; every other brace stays, so that JSON can be an argument."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)


def _check_placeholders(texts: Iterable[str]) -> set[str]:
    used = {match[1] for text in texts for match in _PLACEHOLDER.finditer(text)}
    for name in sorted(used - set(PLACEHOLDERS)):
        known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
        raise ValueError(f"{{{name}}} is no placeholder; there are {known}")
    return used


class _LocalSection(Section):
    """What actuators share whose replicas run on this machine: ports, GPUs, and how one sees that a replica is up."""

    ports: tuple[Annotated[int, Field(ge=0, le=65_535)], Annotated[int, Field(ge=0, le=65_535)]] = (20_000, 20_999)
    """First and last port that replicas may get. The default lies below the range that Linux gives to outgoing
    connections (32768 and up), so that none of them takes a port while its replica still loads. `[0, 0]`: the kernel
    chooses."""
    gpus: Literal["auto", "none"] | tuple[_Card, ...] = "auto"
    """Which GPUs replicas may be given: indices or UUIDs as `nvidia-smi` shows them (a MIG device by its UUID);
    `auto`: every card that is well and that nobody uses; `none`: replicas are given none, whatever their kind says."""
    ready_path: Annotated[str, Field(pattern=r"^/[^\s?#]*$", max_length=1000)] = "/health"
    """A replica is ready once this path answers 2xx. vLLM, SGLang and llama.cpp answer `/health` so when the model is
    loaded; Triton has `/v2/health/ready`."""
    ready_timeout_s: Deadline = 2.0
    """Longest wait for that answer. A server that is up answers in milliseconds; two seconds forgive a busy one."""

    @model_validator(mode="after")
    def _order(self) -> _LocalSection:
        first, last = self.ports
        if first > last or (first == 0) != (last == 0):
            raise ValueError(f"ports = [{first}, {last}] must go from a lower to a higher port, or be [0, 0]")
        if isinstance(self.gpus, tuple) and len(set(map(str, self.gpus))) < len(self.gpus):
            raise ValueError(f"gpus lists a card twice: {', '.join(map(str, self.gpus))}")
        return self


class DryRunSettings(Section):
    """Nothing is started or ended; what would have been is in the log."""

    type: Literal["dry_run"] = "dry_run"
    """Which actuator this is."""


class ProcessSettings(_LocalSection):
    """Replicas are processes of this machine."""

    type: Literal["process"]
    """Which actuator this is."""
    command: Command
    """Program and arguments, such as `[vllm, serve, my-model, --port, "{port}"]`. `{port}`, `{gpus}` (indices or UUIDs
    with commas), `{name}`, `{pool}` and `{kind}` are filled in."""
    environment: Mapping[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}
    """Variables beside those that this process has; the same placeholders. `CUDA_VISIBLE_DEVICES` is set anyway."""
    directory: Annotated[str, Field(min_length=1)] | None = None
    """Where it runs, absolute or beside the policy file; None: beside the policy file."""
    grace_s: Annotated[Seconds, Field(ge=0, le=3600)] = 30.0
    """Between SIGTERM and SIGKILL. What is stopped has no requests left, and half a minute is what Kubernetes gives."""
    log_bytes: Annotated[Bytes, Field(ge=4096)] = 16 << 20
    """A replica's log is cut at this size, and the part before the cut is kept once. 16 MiB hold days of vLLM's
    lines."""

    @model_validator(mode="after")
    def _placeholders(self) -> ProcessSettings:
        if "port" not in _check_placeholders((*self.command, *self.environment.values())):
            raise ValueError("neither command nor environment mentions {port}; the replica could not know its port")
        return self


class SystemdSettings(_LocalSection):
    """Replicas are instances of a template unit of this machine's systemd."""

    type: Literal["systemd"]
    """Which actuator this is."""
    unit: Annotated[str, Field(max_length=100)]
    """Template such as `vllm@{name}.service`; `{name}` is the replica's name. The unit reads its port and GPUs from
    `EnvironmentFile=STATE/replicas/%i.env` (`PORT`, `CUDA_VISIBLE_DEVICES`)."""
    bus: Annotated[str, Field(pattern=r"^(system|user|unix:.+)$")] = "system"
    """`system`, `user` (the session's own systemd), or a D-Bus address."""
    timeout_s: Deadline = 10.0
    """Longest wait for one answer of systemd, which queues jobs and answers at once."""

    @model_validator(mode="after")
    def _template(self) -> SystemdSettings:
        if not _UNIT.match(self.unit):
            raise ValueError(f"unit = {self.unit!r} is no template; write one such as vllm@{{name}}.service")
        return self


class ExecSettings(Section):
    """A command of the operator's does what is to be done."""

    type: Literal["exec"]
    """Which actuator this is."""
    command: Command
    """Program and first arguments; one more argument says what is asked: `observe`, `scale_up`, `drain`, `undrain`,
    `stop` or `give_up`. JSON comes on standard input, and `observe` answers with JSON on standard output."""
    environment: Mapping[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}
    """Variables beside those that this process has."""
    directory: Annotated[str, Field(min_length=1)] | None = None
    """Where it runs, absolute or beside the policy file; None: beside the policy file."""
    timeout_s: Deadline = 10.0
    """The command is killed after this time. An action need only be begun, and the next tick waits for it: the default
    is two thirds of the usual interval."""

    @model_validator(mode="after")
    def _program(self) -> ExecSettings:
        if not self.command[0] or PurePosixPath(self.command[0]).name in ("", "."):
            raise ValueError(f"command[0] = {self.command[0]!r} names no program")
        return self


class WebhookSettings(Section):
    """A service of the operator's does what is to be done."""

    type: Literal["webhook"]
    """Which actuator this is."""
    url: Annotated[str, Field(max_length=2000)]
    """`GET` answers with the replicas as JSON, `POST` takes one action as JSON."""
    token: str | None = None
    """Secret reference (`env:NAME`, `file:NAME`) sent as `Authorization: Bearer`; None: nothing is sent."""
    timeout_s: Deadline = 10.0
    """Longest wait for an answer. An action need only be begun, and the next tick waits for it: the default is two
    thirds of the usual interval."""

    @model_validator(mode="after")
    def _url(self) -> WebhookSettings:
        try:
            parse_url(self.url)
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return self


ActuatorSettings = Annotated[
    DryRunSettings | ProcessSettings | SystemdSettings | ExecSettings | WebhookSettings | KubernetesSettings,
    Field(discriminator="type"),
]
