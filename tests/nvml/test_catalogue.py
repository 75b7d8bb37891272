"""The ten GPU faults of the fault catalogue, K01 to K10, through the real pynvml and a real shared object."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nvml.drivers.nvidia import NvidiaDriver
from nvml.errors import DriverFault
from nvml.owners import OwnerResolver
from nvml.sample import FieldFaultKind, GpuState, ReasonCode
from nvml.sampler import Sampler
from nvml.settings import HealthSettings, NvmlSettings

GIB = 1 << 30


class Clock:
    """Monotonic seconds that move when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def stepped(path: Path, **settings: object) -> tuple[Sampler, Clock]:
    clock = Clock()
    return Sampler(NvidiaDriver(path), NvmlSettings.model_validate(settings), clock=clock), clock


class TestK01NoDriver:
    def test_library_missing_is_a_state_and_not_a_crash(self, tmp_path):
        sampler, clock = stepped(tmp_path / "libnvidia-ml.so.1")
        node = sampler.step()
        assert node.fault is DriverFault.LIBRARY_MISSING
        assert node.gpus == ()
        assert "library_path" in node.detail
        assert sampler.latest(clock.now).fault is DriverFault.LIBRARY_MISSING

    def test_library_missing_by_name(self, tmp_path):
        """In a process of its own, so that no stub is loaded under the name: with a driver it reads, without one it
        says so."""
        program = "from nvml.drivers.nvidia import NvidiaDriver as D\nfrom nvml.errors import DriverError\n"
        program += "try: print(bool(D().open()))\nexcept DriverError as e: print(e.fault.value)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() in ("True", "library_missing", "driver_not_loaded")

    @pytest.mark.parametrize(
        ("code", "fault"),
        [
            (9, DriverFault.NOT_LOADED),
            (4, DriverFault.NO_PERMISSION),
            (999, DriverFault.UNUSABLE),
        ],
    )
    def test_refusals_of_init(self, stub, code, fault):
        stub.say("gpus 1", f"on nvmlInitWithFlags ret={code}")
        sampler, _ = stepped(stub.path)
        node = sampler.step()
        assert (node.fault, node.gpus) == (fault, ())
        assert node.detail

    def test_signals_come_on_when_the_driver_appears_and_retries_back_off(self, stub):
        stub.say("gpus 1", "on nvmlInitWithFlags ret=9")
        sampler, clock = stepped(stub.path, backoff_initial_s=1, backoff_max_s=8, interval_s=1)
        tries = []
        for _ in range(40):
            before = stub.calls
            sampler.step()
            if stub.calls > before:
                tries.append(clock.now)
            clock.now += 1
        gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
        assert gaps == [1, 2, 4, 8, 8, 8, 8]
        stub.say("on nvmlInitWithFlags ret=0")
        clock.now += 8
        node = sampler.step()
        assert node.fault is None
        assert [gpu.state for gpu in node.gpus] == [GpuState.OK]
        sampler.stop()


class TestK02GpuLost:
    @pytest.mark.parametrize(
        "function",
        [
            "nvmlDeviceGetMemoryInfo_v2",
            "nvmlDeviceGetUtilizationRates",
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetFieldValues",
            "nvmlDeviceGetTotalEccErrors",
        ],
    )
    def test_lost_in_any_call_is_out_within_two_samples_and_others_read_on(self, stub, watch, function):
        stub.say("gpus 3")
        bench = watch(stub)
        first = bench.sample()
        assert [gpu.state for gpu in first.gpus] == [GpuState.OK] * 3
        stub.say(f"on {function} gpu=1 from={stub.step + 1} ret=15")
        states = [[gpu.state for gpu in bench.sample().gpus] for _ in range(2)]
        assert states[-1] == [GpuState.OK, GpuState.LOST, GpuState.OK]
        lost = bench.sample().gpus[1]
        assert not lost.takes_new_work
        assert lost.reasons[0].code is ReasonCode.LOST
        assert lost.memory_used_bytes is None
        assert lost.uuid == first.gpus[1].uuid
        assert bench.sample().gpus[0].utilisation_ratio == 0.5

    def test_everything_of_the_card_lost_at_once(self, stub, watch):
        stub.say("gpus 2")
        bench = watch(stub)
        bench.sample(3)
        for function in ("UUID", "MemoryInfo_v2", "MigMode", "UtilizationRates", "HandleByIndex_v2"):
            stub.say(f"on nvmlDeviceGet{function} gpu=0 ret=15")
        assert bench.sample().gpus[0].state is GpuState.LOST

    def test_a_card_that_flaps_stays_out_until_it_is_good_for_a_while(self, stub, watch):
        stub.say(
            "gpus 1",
            "on nvmlDeviceGetMemoryInfo_v2 from=5 to=5 ret=15",
            "on nvmlDeviceGetMemoryInfo_v2 from=7 to=7 ret=15",
        )
        bench = watch(stub)
        bench.sample(3)  # opening counts one step
        states = [bench.sample().gpus[0].state for _ in range(7)]
        lost, ok = GpuState.LOST, GpuState.OK
        assert states == [lost, lost, lost, lost, lost, ok, ok]

    def test_lost_before_the_first_sample(self, stub, watch):
        stub.say("gpus 2", "on nvmlDeviceGetHandleByIndex_v2 gpu=1 ret=15")
        node = watch(stub).sample()
        assert [gpu.state for gpu in node.gpus] == [GpuState.OK, GpuState.LOST]

    def test_the_library_is_opened_again_to_find_a_card_that_came_back(self, stub):
        stub.say(
            "gpus 2",
            "on nvmlDeviceGetUUID gpu=1 from=3 to=20 ret=15",
            "on nvmlDeviceGetMemoryInfo_v2 gpu=1 from=3 to=20 ret=15",
        )
        sampler, clock = stepped(stub.path, reopen_lost_s=10)
        states = []
        for _ in range(40):
            states.append([gpu.state for gpu in sampler.step().gpus])
            clock.now += 1
        assert states[0] == [GpuState.OK, GpuState.OK]
        assert [GpuState.OK, GpuState.LOST] in states
        assert states[-1] == [GpuState.OK, GpuState.OK]
        assert all(state[0] is GpuState.OK for state in states)
        sampler.stop()
        assert stub.event_sets == 0


class TestK03Xids:
    @pytest.mark.parametrize(
        ("number", "state"),
        [
            (79, GpuState.DRAIN),
            (48, GpuState.DRAIN),
            (63, GpuState.OK),
            (94, GpuState.DEGRADED),
            (95, GpuState.DRAIN),
            (13, GpuState.OK),
            (31, GpuState.OK),
            (43, GpuState.OK),
            (45, GpuState.OK),
            (119, GpuState.DRAIN),
            (4242, GpuState.DEGRADED),
        ],
    )
    def test_the_number_decides(self, stub, watch, number, state):
        stub.say("gpus 2")
        bench = watch(stub)
        bench.sample()
        stub.say(f"xid 1 {number}")
        node = bench.sample()
        assert [gpu.state for gpu in node.gpus] == [GpuState.OK, state]
        assert node.gpus[1].last_xid == number
        assert node.gpus[1].xid_counts == ((number, 1),)
        if state is not GpuState.OK:
            assert f"XID {number}" in node.gpus[1].reasons[0].detail

    def test_a_storm_is_read_in_parts_and_counted(self, stub, watch):
        stub.say("gpus 1")
        bench = watch(stub)
        stub.say(*["xid 0 31"] * 200)
        bench.sample(5)
        assert bench.sample().gpus[0].xid_counts == ((31, 200),)

    def test_policy_may_change_the_action(self, stub, watch):
        stub.say("gpus 1")
        bench = watch(stub, HealthSettings.model_validate({"xid_actions": {31: "drain", 48: "ignore"}}))
        stub.say("xid 0 48")
        assert bench.sample().gpus[0].state is GpuState.OK
        stub.say("xid 0 31")
        assert bench.sample().gpus[0].state is GpuState.DRAIN


FIELDS_BY_FUNCTION = {
    "nvmlDeviceGetMemoryInfo_v2": (),  # falls back to the first version
    "nvmlDeviceGetUtilizationRates": ("utilisation_ratio", "memory_utilisation_ratio"),
    "nvmlDeviceGetTemperature": ("temperature_c",),
    "nvmlDeviceGetPowerUsage": ("power_w",),
    "nvmlDeviceGetEnforcedPowerLimit": ("power_limit_w",),
    "nvmlDeviceGetTotalEnergyConsumption": ("energy_j",),
    "nvmlDeviceGetClockInfo": ("sm_clock_mhz", "memory_clock_mhz"),
    "nvmlDeviceGetTotalEccErrors": ("ecc_corrected_count", "ecc_uncorrected_count"),
    "nvmlDeviceGetPcieReplayCounter": ("pcie_replay_count",),
    "nvmlDeviceGetMigMode": ("mig_enabled",),
    "nvmlDeviceGetRemappedRows": ("row_remap_pending", "row_remap_failed", "rows_remapped_corrected_count"),
    "nvmlDeviceGetName": ("name",),
    "nvmlDeviceGetPciInfo_v3": ("pci_bus_id",),
    "nvmlDeviceGetMaxClockInfo": ("sm_clock_max_mhz",),
}


class TestK04NotSupported:
    @pytest.mark.parametrize("code", [3, 4, 13, 999])
    @pytest.mark.parametrize("function", FIELDS_BY_FUNCTION)
    def test_one_field_off_leaves_all_others_on(self, stub, watch, function, code):
        stub.say("gpus 1")
        bench = watch(stub)
        whole = bench.sample().gpus[0]
        bench.driver.close()
        stub.say(f"on {function} ret={code}")
        bench.driver.open()
        node = bench.sample()
        gpu = node.gpus[0]
        assert node.fault is None
        assert gpu.state is GpuState.OK
        off = set(FIELDS_BY_FUNCTION[function])
        if function == "nvmlDeviceGetMemoryInfo_v2" and code != 3 and code != 13:
            off = {"memory_used_bytes", "memory_total_bytes", "memory_free_bytes"}
        for field in off:
            assert getattr(gpu, field) is None, field
        for field in (
            "memory_used_bytes",
            "utilisation_ratio",
            "temperature_c",
            "power_w",
            "energy_j",
            "name",
            "sm_clock_mhz",
        ):
            if field not in off and (field != "memory_used_bytes" or function != "nvmlDeviceGetMemoryInfo_v2"):
                assert getattr(gpu, field) is not None, field
        assert whole.memory_used_bytes == 40 * GIB

    def test_the_kind_of_refusal_is_kept(self, stub, watch):
        stub.say("gpus 1", "on nvmlDeviceGetPowerUsage ret=3", "on nvmlDeviceGetTemperature ret=4")
        kinds = {fault.field: fault.kind for fault in watch(stub).sample().gpus[0].unreadable}
        assert kinds["power_w"] is FieldFaultKind.UNSUPPORTED
        assert kinds["temperature_c"] is FieldFaultKind.DENIED

    def test_utilisation_under_mig(self, stub, watch):
        stub.say("gpus 1", f"mig 0 0 1 0 {GIB} {10 * GIB}")
        gpu = watch(stub).sample().gpus[0]
        assert gpu.utilisation_ratio is None
        assert gpu.memory_used_bytes == 40 * GIB
        assert gpu.state is GpuState.OK

    def test_an_old_driver_without_the_newer_symbols(self, old_stub, watch):
        old_stub.say("gpus 1", f"proc 0 4711 {GIB}", "on nvmlDeviceGetCurrentClocksThrottleReasons v0=0x4")
        node = watch(old_stub).sample()
        gpu = node.gpus[0]
        assert node.driver_version == "450.80.02"
        assert gpu.memory_used_bytes == 41 * GIB  # the first version counts the reserved part as used
        assert gpu.memory_reserved_bytes is None
        assert gpu.processes is not None
        assert gpu.processes[0].pid == 4711
        assert [reason.value for reason in gpu.throttle_reasons or ()] == ["sw_power_cap"]
        assert gpu.row_remap_pending is None
        assert gpu.page_retirement_pending is False
        assert gpu.state is GpuState.OK

    def test_events_not_supported(self, stub, watch):
        stub.say("gpus 1", "on nvmlEventSetCreate ret=3")
        gpu = watch(stub).sample().gpus[0]
        assert not gpu.xid_events_supported
        assert gpu.state is GpuState.OK


class TestK05Mig:
    def test_instances_are_listed_with_their_own_memory(self, stub, watch):
        stub.say(
            "gpus 2", f"mig 1 0 7 0 {2 * GIB} {10 * GIB}", f"mig 1 3 9 1 {5 * GIB} {20 * GIB}", f"proc 1 77 {GIB} 9 1"
        )
        plain, split = watch(stub).sample().gpus
        assert (plain.mig_enabled, plain.mig) == (False, ())
        assert split.mig_enabled
        assert [(m.uuid, m.index, m.gpu_instance_id, m.compute_instance_id) for m in split.mig] == [
            ("MIG-1-0", 0, 7, 0),
            ("MIG-1-3", 3, 9, 1),
        ]
        assert [(m.memory_used_bytes, m.memory_total_bytes) for m in split.mig] == [
            (2 * GIB, 10 * GIB),
            (5 * GIB, 20 * GIB),
        ]
        assert split.processes is not None
        assert (split.processes[0].gpu_instance_id, split.processes[0].compute_instance_id) == (9, 1)

    def test_mig_turned_off_between_samples(self, stub, watch):
        stub.say("gpus 1", f"mig 0 0 1 0 {GIB} {10 * GIB}")
        bench = watch(stub)
        assert len(bench.sample().gpus[0].mig) == 1
        stub.say("reset", "gpus 1")
        gpu = bench.sample().gpus[0]
        assert (gpu.mig, gpu.utilisation_ratio) == ((), 0.5)


class TestK06Hang:
    @pytest.mark.parametrize(
        "function",
        ["nvmlInitWithFlags", "nvmlDeviceGetCount_v2", "nvmlDeviceGetMemoryInfo_v2", "nvmlEventSetWait_v2"],
    )
    def test_a_hung_call_is_seen_as_stale_and_named(self, stub, function):
        stub.say("gpus 1", f"on {function} from=3 hang_ms=900", "on nvmlInitWithFlags from=0 to=2")
        if function == "nvmlInitWithFlags":
            stub.say("on nvmlInitWithFlags hang_ms=900")
        settings = NvmlSettings(interval_s=0.05, deadline_s=0.25)
        sampler = Sampler(NvidiaDriver(stub.path), settings)
        sampler.start()
        until = time.monotonic() + 5
        while (node := sampler.latest()).fault is not DriverFault.HUNG and time.monotonic() < until:
            time.sleep(0.01)
        assert node.fault is DriverFault.HUNG
        assert node.hung is not None
        assert function.split("_")[0].removesuffix("WithFlags") in node.hung.call.replace("WithFlags", "")
        assert node.hung.for_s >= 0.25
        if function == "nvmlDeviceGetMemoryInfo_v2":
            assert node.hung.gpu_index == 0
        for gpu in node.gpus:
            assert gpu.state is GpuState.UNKNOWN
            assert gpu.takes_new_work
            assert gpu.reasons[0].code is ReasonCode.STALE
        stub.say("on nvmlInitWithFlags", f"on {function}")
        while (node := sampler.latest()).fault is not None and time.monotonic() < until + 5:
            time.sleep(0.01)
        assert [gpu.state for gpu in node.gpus] == [GpuState.OK]
        assert sampler.stop(timeout_s=5)

    def test_stop_does_not_wait_for_a_hung_call(self, stub):
        stub.say("gpus 1", "on nvmlDeviceGetCount_v2 from=3 hang_ms=1000")
        sampler = Sampler(NvidiaDriver(stub.path), NvmlSettings(interval_s=0.01, deadline_s=0.1))
        sampler.start()
        while stub.step < 3:
            time.sleep(0.005)
        began = time.monotonic()
        assert sampler.stop(timeout_s=0.05) is False
        assert time.monotonic() - began < 0.5
        assert sampler.stop(timeout_s=5)  # the call came back: the thread ends and lets go of the library

    def test_a_known_bad_card_stays_bad_while_readings_are_stale(self, stub):
        stub.say("gpus 2", "on nvmlDeviceGetMemoryInfo_v2 gpu=1 ret=15")
        sampler, clock = stepped(stub.path)
        sampler.step()
        node = sampler.latest(clock.now + 60)
        assert [gpu.state for gpu in node.gpus] == [GpuState.UNKNOWN, GpuState.LOST]
        assert "60 s old" in node.gpus[0].reasons[0].detail
        sampler.stop()


class TestK07CountChanges:
    def test_cards_are_known_by_uuid_when_indexes_shift(self, stub, watch):
        stub.say("gpus 3", "uuid 0 A", "uuid 1 B", "uuid 2 C")
        bench = watch(stub)
        stub.say("xid 2 48")
        assert [gpu.uuid for gpu in bench.sample().gpus] == ["A", "B", "C"]
        stub.say("gpus 2", "uuid 1 C")  # B was taken away, C moved to its place
        bench.sample()
        node = bench.sample()
        by_uuid = {gpu.uuid: gpu for gpu in node.gpus}
        assert by_uuid["C"].index == 1
        assert by_uuid["C"].state is GpuState.DRAIN
        assert by_uuid["C"].last_xid == 48
        assert by_uuid["A"].state is GpuState.OK
        assert by_uuid["B"].state is GpuState.LOST
        assert by_uuid["B"].reasons[0].code is ReasonCode.VANISHED

    def test_a_card_that_appears_is_read_and_its_events_are_heard(self, stub, watch):
        stub.say("gpus 1")
        bench = watch(stub)
        assert len(bench.sample().gpus) == 1
        stub.say("gpus 2")
        assert [gpu.state for gpu in bench.sample().gpus] == [GpuState.OK, GpuState.OK]
        stub.say("xid 1 95")
        assert bench.sample().gpus[1].state is GpuState.DRAIN
        assert stub.event_sets == 1

    def test_a_swapped_card_at_the_same_index(self, stub, watch):
        stub.say("gpus 1", "uuid 0 OLD", "uuid 0 NEW from=4")
        bench = watch(stub)
        bench.sample(2)
        by_uuid = {gpu.uuid: gpu.state for gpu in bench.sample(3).gpus}
        assert by_uuid == {"OLD": GpuState.LOST, "NEW": GpuState.OK}

    def test_no_cards_at_all(self, stub, watch):
        stub.say("gpus 0")
        node = watch(stub).sample()
        assert (node.gpus, node.fault) == ((), None)

    def test_a_vanished_card_is_forgotten_after_a_day(self, stub, watch):
        stub.say("gpus 2")
        bench = watch(stub)
        bench.sample()
        stub.say("gpus 1")
        assert len(bench.sample(5).gpus) == 2
        assert len(bench.sample(2, every_s=50_000).gpus) == 1


class TestK08VersionMismatch:
    def test_mismatch_at_init_backs_off_and_then_reads(self, stub):
        stub.say("gpus 1", "on nvmlInitWithFlags ret=18")
        sampler, clock = stepped(stub.path)
        node = sampler.step()
        assert node.fault is DriverFault.VERSION_MISMATCH
        assert "reboot" in node.detail
        stub.say("on nvmlInitWithFlags")
        clock.now += 0.5
        assert sampler.step().fault is DriverFault.VERSION_MISMATCH  # still waiting
        clock.now += 1
        assert sampler.step().fault is None
        sampler.stop()

    def test_mismatch_in_mid_run_keeps_the_cards_as_unknown(self, stub):
        stub.say("gpus 2", "on nvmlDeviceGetTemperature gpu=1 from=4 to=4 ret=18")
        sampler, clock = stepped(stub.path)
        sampler.step()
        clock.now += 1
        sampler.step()
        clock.now += 1
        node = sampler.step()
        assert node.fault is DriverFault.VERSION_MISMATCH
        assert [gpu.state for gpu in node.gpus] == [GpuState.UNKNOWN] * 2
        assert {gpu.reasons[0].code for gpu in node.gpus} == {ReasonCode.DRIVER}
        clock.now += 2
        assert [gpu.state for gpu in sampler.step().gpus] == [GpuState.OK] * 2
        sampler.stop()
        assert stub.event_sets == 0

    def test_the_new_library_file_is_loaded_after_an_upgrade(self, libraries, tmp_path, monkeypatch):
        path, script = tmp_path / "libnvidia-ml.so.1", tmp_path / "script"
        script.write_text("gpus 1\non nvmlDeviceGetCount_v2 from=3 ret=18\n")
        monkeypatch.setenv("NVML_STUB_SCRIPT", str(script))
        shutil.copy(libraries["old"], path)
        sampler, clock = stepped(path)
        assert sampler.step().driver_version == "450.80.02"
        clock.now += 1
        assert sampler.step().fault is DriverFault.VERSION_MISMATCH
        script.write_text("gpus 1\n")
        shutil.copy(libraries["current"], tmp_path / "new")
        (tmp_path / "new").replace(path)
        clock.now += 2
        node = sampler.step()
        assert (node.fault, node.driver_version) == (None, "570.86.15")
        sampler.stop()


class TestK09AbsurdValues:
    @pytest.mark.parametrize(
        ("rule", "field"),
        [
            ("nvmlDeviceGetUtilizationRates v0=255", "utilisation_ratio"),
            ("nvmlDeviceGetUtilizationRates v1=101", "memory_utilisation_ratio"),
            ("nvmlDeviceGetTemperature v0=0xFFFF", "temperature_c"),
            ("nvmlDeviceGetPowerUsage v0=0xFFFFFFFF", "power_w"),
            ("nvmlDeviceGetEnforcedPowerLimit v0=0xFFFFFFFF", "power_limit_w"),
            ("nvmlDeviceGetClockInfo v0=0xFFFFFFFF", "sm_clock_mhz"),
            ("nvmlDeviceGetMemoryInfo_v2 v0=0xFFFFFFFFFFFFFFFF v3=0", "memory_used_bytes"),
            ("nvmlDeviceGetMemoryInfo_v2 v1=0 v3=0", "memory_total_bytes"),
            ("nvmlDeviceGetMemoryInfo_v2 v0=99999999999 v3=0", "memory_used_bytes"),  # more than the total
            ("nvmlDeviceGetTotalEccErrors v0=0xFFFFFFFFFFFFFFFF", "ecc_corrected_count"),
            ("nvmlDeviceGetPcieReplayCounter v0=0xFFFFFFFF", "pcie_replay_count"),
        ],
    )
    def test_dropped_and_named(self, stub, watch, rule, field):
        stub.say("gpus 1", f"on {rule}")
        gpu = watch(stub).sample().gpus[0]
        assert getattr(gpu, field) is None
        assert [fault.field for fault in gpu.unreadable if fault.kind is FieldFaultKind.ABSURD] == [field]
        assert gpu.name == "Stub H100 80GB"

    def test_a_uuid_that_is_not_text(self, stub, watch):
        stub.say("gpus 2", "uuid 0 \xff\xfe".encode().decode())
        stub.say("on nvmlDeviceGetTemperature v0=20")
        assert all(gpu.temperature_c == 20 for gpu in watch(stub).sample().gpus)

    def test_memory_that_is_not_available_per_process(self, stub, watch):
        stub.say("gpus 1", f"proc 0 77 {2**64 - 1}")
        gpu = watch(stub).sample().gpus[0]
        assert gpu.processes is not None
        assert gpu.processes[0].used_bytes is None
        assert gpu.memory_leaked_bytes is None


class TestK10ProcessRaces:
    def test_a_process_that_has_gone_is_left_out(self, stub):
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        stub.say("gpus 1", f"proc 0 {gone.pid} {GIB}", f"proc 0 {os.getpid()} {2 * GIB}")
        owners = OwnerResolver(refresh_s=10)
        owners.sees_host = True
        sampler = Sampler(NvidiaDriver(stub.path), NvmlSettings(), owners)
        processes = sampler.step().gpus[0].processes
        assert processes is not None
        assert [process.pid for process in processes] == [os.getpid()]
        assert processes[0].owner is not None
        sampler.stop()

    def test_processes_that_come_and_go_while_they_are_listed(self, stub):
        owners = OwnerResolver(refresh_s=0.001)
        owners.sees_host = True
        stop = threading.Event()

        def churn() -> None:
            while not stop.is_set():
                child = subprocess.Popen(["/bin/true"])
                stub.say("noproc 0", f"proc 0 {child.pid} {GIB}", f"proc 0 {os.getpid()} {GIB}")
                child.wait()

        stub.say("gpus 1")
        sampler = Sampler(NvidiaDriver(stub.path), NvmlSettings(), owners)
        sampler.step()
        thread = threading.Thread(target=churn)
        thread.start()
        try:
            for _ in range(100):
                node = sampler.step()
                assert node.fault is None
                assert node.gpus[0].state is GpuState.OK
        finally:
            stop.set()
            thread.join()
        sampler.stop()

    def test_the_list_grows_between_the_two_calls(self, stub, watch):
        # The library asks for a larger array each time; pynvml leaves room for twice as many and five more.
        stub.say("gpus 1", *[f"proc 0 {pid} 1024" for pid in range(1000, 1300)])
        processes = watch(stub).sample().gpus[0].processes
        assert processes is not None
        assert len(processes) == 300

    def test_the_list_stays_too_small(self, stub, watch):
        stub.say("gpus 1", f"proc 0 77 {GIB}", "on nvmlDeviceGetComputeRunningProcesses_v3 ret=7")
        gpu = watch(stub).sample().gpus[0]
        assert gpu.processes is None
        assert gpu.state is GpuState.OK
