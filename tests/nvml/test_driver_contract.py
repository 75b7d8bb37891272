"""What every source of readings must keep to. `make test-gpu` runs the same tests on this machine's own driver."""

from __future__ import annotations

from nvml.driver import Driver
from nvml.health import NodeHistory, fold
from nvml.sample import GpuState
from nvml.sampler import Sampler
from nvml.sanity import sanitise
from nvml.settings import HealthSettings, NvmlSettings
from nvml.wire import decode, encode


def test_samples_are_whole_and_sane(any_driver: Driver):
    any_driver.open()
    first, second = any_driver.read(10.0), any_driver.read(11.0)
    assert first
    assert [gpu.uuid for gpu in first] == [gpu.uuid for gpu in second]
    assert len({gpu.uuid for gpu in first}) == len(first)
    assert [gpu.index for gpu in first] == sorted(gpu.index for gpu in first)
    for gpu in (*first, *second):
        assert sanitise(gpu) is gpu
        assert gpu.fault is None
        assert gpu.name
        assert gpu.memory_total_bytes
        assert gpu.memory_used_bytes is not None
    assert {gpu.taken_at for gpu in second} == {11.0}


def test_what_is_none_is_explained(any_driver: Driver):
    """A field is None because it was refused, or because the reading it belongs to was."""
    any_driver.open()
    for gpu in any_driver.read(0.0):
        if gpu.unreadable:
            named = {fault.field for fault in gpu.unreadable}
            assert ("power_w" in named) == (gpu.power_w is None)
            assert ("temperature_c" in named) == (gpu.temperature_c is None)
            assert ("utilisation" in named) == (gpu.utilisation_ratio is None)


def test_the_call_in_progress_is_named(any_driver: Driver):
    any_driver.open()
    any_driver.read(0.0)
    call, index = any_driver.doing
    assert call
    assert index is None or index >= 0


def test_it_can_be_closed_twice_and_opened_again(any_driver: Driver):
    any_driver.open()
    before = [gpu.uuid for gpu in any_driver.read(0.0)]
    any_driver.close()
    any_driver.close()
    any_driver.open()
    assert [gpu.uuid for gpu in any_driver.read(1.0)] == before


def test_samples_fold_into_a_view_that_travels(any_driver: Driver):
    any_driver.open()
    history = NodeHistory()
    for now in (10.0, 11.0, 12.0):
        history, node = fold(history, any_driver.read(now), now, HealthSettings())
    assert all(gpu.state in (GpuState.OK, GpuState.DEGRADED) for gpu in node.gpus)
    assert all(0 < gpu.speed_ratio <= 1 for gpu in node.gpus)
    assert decode(encode(node, now=12.0), received_at=12.0) == node


def test_under_the_sampler(any_driver: Driver):
    sampler = Sampler(any_driver, NvmlSettings())
    node = sampler.step()
    assert node.fault is None
    assert node.gpus
    assert sampler.latest().gpus == node.gpus
    assert sampler.stop()
