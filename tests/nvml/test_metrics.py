"""The Prometheus text that people's dashboards read."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from nvml.drivers.fake import FakeDriver
from nvml.errors import DriverFault
from nvml.health import NodeHistory, fold
from nvml.metrics import GpuCollector
from nvml.sample import MigInstance, NodeSnapshot, ThrottleReason
from nvml.settings import HealthSettings


def scrape(node: NodeSnapshot, *, dcgm_names: bool = False) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(GpuCollector(lambda: node, dcgm_names=dcgm_names, hostname="box-1", clock=lambda: 103.0))
    text = generate_latest(registry).decode()
    families = text_string_to_metric_families(text)
    return {(s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def node_of(driver: FakeDriver) -> NodeSnapshot:
    return fold(NodeHistory(), driver.read(100.0), 100.0, HealthSettings(), driver_version="570.1")[1]


def test_own_names_carry_base_units():
    driver = FakeDriver(1)
    uuid = driver.gpus[0].uuid
    series = scrape(node_of(driver))
    assert series["tidegate_gpu_memory_used_bytes", "gpu=0", f"uuid={uuid}"] == 60 << 30
    assert series["tidegate_gpu_memory_headroom_bytes", "gpu=0", f"uuid={uuid}"] == 19 << 30
    assert series["tidegate_gpu_utilisation_ratio", "gpu=0", f"uuid={uuid}"] == 0.5
    assert series["tidegate_gpu_sm_clock_hertz", "gpu=0", f"uuid={uuid}"] == 1.98e9
    assert series["tidegate_gpu_state", "gpu=0", "state=ok", f"uuid={uuid}"] == 1
    assert series["tidegate_gpu_state", "gpu=0", "state=lost", f"uuid={uuid}"] == 0
    assert series["tidegate_gpu_reading_age_seconds", "gpu=0", f"uuid={uuid}"] == 3
    assert not any(key[0].startswith("DCGM") for key in series)


def test_what_is_not_known_has_no_series():
    series = scrape(node_of(FakeDriver(1)))
    names = {key[0] for key in series}
    assert "tidegate_gpu_memory_foreign_bytes" not in names
    assert "tidegate_gpu_energy_joules_total" not in names
    assert "tidegate_gpu_nvlink_replays_total" not in names


def test_a_lost_card_keeps_its_state_and_loses_its_values():
    driver = FakeDriver(2)
    driver.lose(1)
    series = scrape(node_of(driver), dcgm_names=True)
    lost = driver.gpus[1].uuid
    about_lost = {key[0] for key in series if f"uuid={lost}" in key or f"UUID={lost}" in key}
    assert about_lost == {
        *("tidegate_gpu_info", "tidegate_gpu_state", "tidegate_gpu_reason", "tidegate_gpu_reading_age_seconds")
    }
    assert series["tidegate_gpu_reason", "gpu=1", "reason=lost", f"uuid={lost}"] == 1


def test_events_throttling_and_instances():
    driver = FakeDriver(1)
    driver.change(
        0,
        xids=(48, 48, 31),
        throttle_reasons=(ThrottleReason.SW_POWER_CAP,),
        mig=(MigInstance("MIG-1", 0, memory_used_bytes=5, memory_total_bytes=10),),
    )
    series = scrape(node_of(driver))
    uuid = f"uuid={driver.gpus[0].uuid}"
    assert series["tidegate_gpu_xid_events_total", "gpu=0", uuid, "xid=48"] == 2
    assert series["tidegate_gpu_xid_events_total", "gpu=0", uuid, "xid=31"] == 1
    assert series["tidegate_gpu_throttle", "gpu=0", "reason=sw_power_cap", uuid] == 1
    assert series["tidegate_gpu_throttle", "gpu=0", "reason=hw_thermal", uuid] == 0
    assert series["tidegate_gpu_mig_memory_used_bytes", "gpu=0", "mig=MIG-1", uuid] == 5


def test_dcgm_names_units_and_labels():
    driver = FakeDriver(1)
    driver.change(0, energy_j=2.5, ecc_uncorrected_count=3, pcie_replay_count=4, xids=(13,), xid_events_supported=True)
    uuid = driver.gpus[0].uuid
    series = scrape(node_of(driver), dcgm_names=True)
    labels = (
        "DCGM_FI_DRIVER_VERSION=570.1",
        "Hostname=box-1",
        f"UUID={uuid}",
        "device=nvidia0",
        "gpu=0",
        "modelName=Fake GPU 80GB",
        "pci_bus_id=00000000:01:00.0",
    )
    expected = {
        "DCGM_FI_DEV_FB_USED": 60 * 1024,
        "DCGM_FI_DEV_FB_FREE": 19 * 1024,
        "DCGM_FI_DEV_GPU_UTIL": 50,
        "DCGM_FI_DEV_MEM_COPY_UTIL": 30,
        "DCGM_FI_DEV_GPU_TEMP": 55,
        "DCGM_FI_DEV_POWER_USAGE": 350,
        "DCGM_FI_DEV_SM_CLOCK": 1980,
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 2500,
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": 3,
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": 4,
        "DCGM_FI_DEV_XID_ERRORS": 13,
    }
    assert {name: series[(name, *labels)] for name in expected} == expected
    assert ("tidegate_gpu_speed_ratio", "gpu=0", f"uuid={uuid}") in series


@pytest.mark.parametrize("fault", [None, *DriverFault])
def test_the_driver_fault_is_a_closed_set(fault):
    series = scrape(NodeSnapshot(taken_at=100.0, fault=fault))
    values = {key[1]: value for key, value in series.items() if key[0] == "tidegate_gpu_driver_fault"}
    assert len(values) == len(DriverFault)
    assert {key for key, value in values.items() if value} == (set() if fault is None else {f"fault={fault.value}"})
