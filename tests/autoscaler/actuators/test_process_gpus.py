"""Which cards replicas that are processes get."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoscaler.action import Stop
from autoscaler.actuator import ActuatorError
from autoscaler.actuators import Surroundings, build_actuator
from autoscaler.local.records import Records
from autoscaler.policy.pools import PoolSettings
from nvml.drivers.fake import fake_gpu
from nvml.sample import GpuSnapshot, GpuState, NodeSnapshot
from tests.autoscaler.actuators.worlds import POOL, Make, gone, pool, until, up


def card(index: int, *, used: float = 0.0, state: GpuState = GpuState.OK) -> GpuSnapshot:
    sample = fake_gpu(index)
    total = sample.memory_total_bytes or 0
    return GpuSnapshot(
        uuid=sample.uuid, index=index, taken_at=0.0, memory_used_bytes=int(total * used), memory_total_bytes=total,
        state=state,
    )  # fmt: skip


def gpu_pool(name: str = POOL, gpus: object = "auto", wanted: int = 2) -> PoolSettings:
    command = ["/bin/sh", "-c", "echo $CUDA_VISIBLE_DEVICES,{gpus},{port} >$0; sleep 60", "{name}.gpus"]
    actuator = {"type": "process", "command": command, "ports": [0, 0], "grace_s": 0.2, "gpus": gpus}
    return pool(actuator, name=name, kinds=[{"name": "good", "gpus": wanted}])


async def test_replicas_get_free_gpus_and_give_them_back(make: Make, tmp_path: Path) -> None:
    make()
    node = NodeSnapshot(
        taken_at=0.0,
        gpus=(card(0), card(1, used=0.5), card(2), card(3, state=GpuState.LOST), card(4), card(5), card(6)),
    )
    around = Surroundings(tmp_path / "state", tmp_path, gpus=lambda: node)
    chat = build_actuator(gpu_pool(), around)
    other = build_actuator(gpu_pool("other"), around)
    await chat.apply(up("a"))
    await other.apply(up("b"))
    assert (await chat.observe()).full == {"good"}
    with pytest.raises(ActuatorError, match=r"takes 2 GPU.* 1 free"):
        await chat.apply(up("c"))
    seen = (await chat.observe()).replicas
    assert [one.endpoint.gpu_uuids for one in seen if one.endpoint] == [(fake_gpu(0).uuid, fake_gpu(2).uuid)]
    shown = tmp_path / "a.gpus"
    await until(chat, lambda _: shown.exists() and shown.read_text().startswith("0,2,0,2,"))
    await chat.apply(Stop(POOL, "a", 0, "r"))
    await gone(chat, "a")
    assert (await chat.observe()).full == frozenset()
    await chat.apply(up("c"))
    await chat.close()
    await other.close()


async def test_gpus_can_be_listed_and_where_none_can_be_read_they_must_be(make: Make, tmp_path: Path) -> None:
    make()
    around = Surroundings(tmp_path / "state", tmp_path)
    blind = build_actuator(gpu_pool(), around)
    assert (await blind.observe()).full == {"good"}
    with pytest.raises(ActuatorError, match=r"no GPU can be read here .*; list them in `gpus`"):
        await blind.apply(up("a"))
    listed = build_actuator(gpu_pool(gpus=[0, "MIG-1"]), around)
    await listed.apply(up("a"))
    records = Records(around.state_directory)
    (record,) = records.load(POOL)[0]
    assert (record.gpus, record.uuids) == (("0", "MIG-1"), ("MIG-1",))
    assert (await listed.observe()).full == {"good"}
    none = build_actuator(gpu_pool(gpus="none"), around)
    await none.apply(up("b"))
    assert (await none.observe()).full == frozenset()
    for one in (blind, listed, none):
        await one.close()


async def test_a_listed_card_is_held_under_its_other_name_too(make: Make, tmp_path: Path) -> None:
    make()
    node = NodeSnapshot(taken_at=0.0, gpus=(card(0), card(1, used=0.9)))
    around = Surroundings(tmp_path / "state", tmp_path, gpus=lambda: node)
    by_index = build_actuator(gpu_pool(gpus=[0, 1], wanted=1), around)
    by_uuid = build_actuator(gpu_pool("other", gpus=[fake_gpu(0).uuid], wanted=1), around)
    await by_uuid.apply(up("b"))
    await by_index.apply(up("a"))
    (record,) = Records(around.state_directory).load(POOL)[0]
    assert record.gpus == ("1",), "a listed card may be in use by others, but not by a replica of ours"
    await by_index.close()
    await by_uuid.close()
