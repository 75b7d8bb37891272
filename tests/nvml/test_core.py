"""The smaller pure parts: XID table, sanity, memory facts, cgroups, settings."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nvml.cgroup import Membership, parse_cgroup
from nvml.drivers import DRIVERS, make_driver
from nvml.drivers.fake import fake_gpu
from nvml.memory import fits, footprint_reached, memory_facts
from nvml.sample import GpuProcess, GpuReading, GpuSnapshot, MigInstance, NodeSnapshot, Owner, OwnerKind
from nvml.sanity import BOUNDS, sanitise
from nvml.settings import HealthSettings, NvmlSettings
from nvml.xid import XID_RULES, XidAction, rule_for

GIB = 1 << 30
GPU = fake_gpu(0)


class TestXidTable:
    def test_the_device_plugins_application_errors_are_ignored_but_for_the_newer_verdict_on_109(self):
        assert {n: rule_for(n).action for n in (13, 31, 43, 45, 68, 109)} == {
            **dict.fromkeys((13, 31, 43, 45, 68), XidAction.IGNORE),
            109: XidAction.DRAIN,
        }

    def test_every_reset_bucket_drains_and_every_restart_bucket_does_not(self):
        for number, rule in XID_RULES.items():
            if rule.bucket == "RESET_GPU":
                assert rule.action is XidAction.DRAIN, number
            if rule.bucket == "RESTART_APP":
                assert rule.action is not XidAction.DRAIN, number
            assert rule.meaning
            assert rule.bucket

    def test_an_unknown_number_degrades(self):
        assert rule_for(9999).action is XidAction.DEGRADE

    def test_policy_overrides_keep_the_meaning(self):
        rule = rule_for(94, {94: XidAction.DRAIN})
        assert (rule.action, rule.meaning) == (XidAction.DRAIN, rule_for(94).meaning)


class TestSanity:
    def test_a_good_sample_is_returned_as_it_is(self):
        assert sanitise(GPU) is GPU

    def test_every_bounded_field_exists(self):
        assert set(BOUNDS) <= {field.name for field in fields(GpuReading)}

    @pytest.mark.parametrize("field", BOUNDS)
    def test_beyond_either_bound_is_dropped(self, field):
        low, high = BOUNDS[field]
        for value in (low - 1, high * 2 + 1, math.nan, math.inf):
            cleaned = sanitise(replace(GPU, **{field: value}))
            assert getattr(cleaned, field) is None
            assert field in {fault.field for fault in cleaned.unreadable}

    def test_an_instance_with_more_used_than_it_has(self):
        bad = MigInstance("MIG-1", 0, memory_used_bytes=3, memory_total_bytes=2)
        assert sanitise(replace(GPU, mig=(bad,))).mig[0].memory_used_bytes is None

    def test_a_process_with_more_than_the_card(self):
        processes = (GpuProcess(1, 2**62), GpuProcess(2, GIB))
        assert sanitise(replace(GPU, processes=processes)).processes == (GpuProcess(1, None), GpuProcess(2, GIB))

    @settings(deadline=None)
    @given(st.dictionaries(st.sampled_from(sorted(BOUNDS)), st.none() | st.integers() | st.floats()))
    def test_nothing_impossible_passes(self, values):
        cleaned = sanitise(replace(GPU, **values))
        for field, (low, high) in BOUNDS.items():
            value = getattr(cleaned, field)
            assert value is None or low <= value <= high


class TestMemory:
    def processes(self) -> tuple[GpuProcess, ...]:
        return (GpuProcess(1, 30 * GIB, ports=(8000,)), GpuProcess(2, 10 * GIB, ports=(8000,)), GpuProcess(3, 5 * GIB))

    def test_the_four_facts(self):
        facts = memory_facts(replace(GPU, processes=self.processes()), {8000, 8001})
        assert facts.loaded_bytes == 40 * GIB
        assert facts.foreign_bytes == 5 * GIB
        assert facts.unowned_bytes == 15 * GIB
        assert facts.headroom_bytes == 19 * GIB

    def test_nothing_is_foreign_until_replicas_are_declared(self):
        facts = memory_facts(replace(GPU, processes=self.processes()), None)
        assert (facts.loaded_bytes, facts.foreign_bytes) == (None, None)

    def test_one_unknown_process_makes_its_sum_unknown(self):
        unknown = (*self.processes(), GpuProcess(4, None))
        facts = memory_facts(replace(GPU, processes=unknown), {8000})
        assert (facts.loaded_bytes, facts.foreign_bytes, facts.unowned_bytes) == (40 * GIB, None, None)

    def test_headroom_takes_the_smaller_of_two_truths(self):
        assert memory_facts(replace(GPU, memory_free_bytes=GIB), None).headroom_bytes == GIB
        assert memory_facts(replace(GPU, memory_free_bytes=None), None).headroom_bytes == 19 * GIB
        assert memory_facts(replace(GPU, memory_used_bytes=None), None).headroom_bytes == 19 * GIB
        blind = replace(GPU, memory_used_bytes=None, memory_free_bytes=None)
        assert memory_facts(blind, None).headroom_bytes is None

    def snapshot(self, **values: object) -> GpuSnapshot:
        known: dict[str, object] = {"uuid": "GPU-1", "index": 0, "taken_at": 0.0, **values}
        return GpuSnapshot(**known)  # type: ignore[arg-type]

    def test_a_restart_fits_where_a_second_model_does_not(self):
        gpu = self.snapshot(headroom_bytes=10 * GIB, memory_loaded_bytes=60 * GIB)
        assert fits(gpu, 20 * GIB) is False
        assert fits(gpu, 20 * GIB, restart=True) is True
        assert fits(self.snapshot(), 1) is None
        assert fits(self.snapshot(headroom_bytes=1), 1, restart=True) is None

    def test_loaded_means_that_the_footprint_is_reached_over_all_cards(self):
        half = self.snapshot(processes=(GpuProcess(1, 20 * GIB, ports=(8000,)),))
        assert footprint_reached([half, half], 8000, 40 * GIB) is True
        assert footprint_reached([half], 8000, 40 * GIB) is False
        assert footprint_reached([half], 9000, GIB) is None
        assert footprint_reached([self.snapshot(processes=(GpuProcess(1, None, ports=(8000,)),))], 8000, 1) is None


ID = "3f4e8b5a" * 8
POD = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0"
POD_ = POD.replace("-", "_")


class TestCgroup:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("0::/system.slice/vllm@0.service", Membership(unit="vllm@0.service")),
            ("0::/system.slice/system-vllm.slice/vllm@1.service", Membership(unit="vllm@1.service")),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/tgi.service", Membership(unit="tgi.service")),
            ("0::/user.slice/user-1000.slice/session-3.scope", Membership(unit="session-3.scope")),
            (
                f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD_}.slice/cri-containerd-{ID}.scope",
                Membership(pod_uid=POD, container_id=ID),
            ),
            (
                f"0::/kubepods.slice/kubepods-pod{POD_}.slice/crio-{ID}.scope/container",
                Membership(pod_uid=POD, container_id=ID),
            ),
            (f"0::/kubepods/besteffort/pod{POD}/{ID}", Membership(pod_uid=POD, container_id=ID)),
            (f"0::/kubelet.slice/kubepods/pod{POD.replace('-', '')}/{ID}", Membership(pod_uid=POD, container_id=ID)),
            (
                f"0::/system.slice/containerd.service/kubepods-burstable-pod{POD_}.slice:cri-containerd:{ID}",
                Membership(pod_uid=POD, container_id=ID),
            ),
            (f"0::/system.slice/docker-{ID}.scope", Membership(container_id=ID)),
            (f"0::/docker/{ID}", Membership(container_id=ID)),
            (f"0::/../docker-{ID}.scope", Membership(container_id=ID)),
            (f"0::/machine.slice/libpod-{ID}.scope/container", Membership(container_id=ID)),
            (
                f"12:memory:/docker/{ID}\n11:cpuset:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/docker.service",
                Membership(container_id=ID),
            ),
            (
                f"9:devices:/kubepods/burstable/pod{POD}/{ID}\n1:name=systemd:/kubepods/burstable/pod{POD}/{ID}",
                Membership(pod_uid=POD, container_id=ID),
            ),
            (
                "12:memory:/system.slice/vllm.service\n1:name=systemd:/system.slice/vllm.service",
                Membership(unit="vllm.service"),
            ),
            ("0::/", Membership()),
            ("", Membership()),
            ("nonsense\n:::::\n\x00", Membership()),
        ],
    )
    def test_layouts(self, text, expected):
        assert parse_cgroup(text) == expected

    @settings(deadline=None)
    @given(st.text())
    def test_any_text_is_survived(self, text):
        assert isinstance(parse_cgroup(text), Membership)


class TestSettings:
    def test_durations_as_operators_write_them(self):
        settings = NvmlSettings.model_validate({"interval_s": "500ms", "deadline_s": "1m30s"})
        assert (settings.interval_s, settings.deadline_s) == (0.5, 90.0)

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"interval_s": 10, "deadline_s": 2}, "deadline must be at least interval"),
            ({"interval_s": "soon"}, "is not a duration"),
            ({"interval_s": 0}, "greater than 0"),
            ({"interval_s": math.inf}, "finite"),
            ({"intervall": 1}, "Extra inputs"),
            ({"backoff_initial_s": 9, "backoff_max_s": 3}, "backoff_max is 3s"),
            ({"health": {"xid_actions": {"79": "explode"}}}, "'ignore', 'degrade' or 'drain'"),
            ({"driver": "amd"}, "'nvidia', 'fake' or 'off'"),
        ],
    )
    def test_errors_say_what_would_be_right(self, values, words):
        with pytest.raises(ValidationError, match=words):
            NvmlSettings.model_validate(values)

    def test_every_field_is_described(self):
        for model in (NvmlSettings, HealthSettings):
            for name, field in model.model_fields.items():
                assert field.description or name == "health", f"{model.__name__}.{name}"

    def test_every_driver_name_has_a_driver_or_is_off(self):
        for name in ("nvidia", "fake", "off"):
            driver = make_driver(NvmlSettings.model_validate({"driver": name}))
            assert (driver is None) == (name == "off")
        assert set(DRIVERS) == {"nvidia", "fake"}


def test_cards_are_found_by_the_port_of_their_replica():
    owner = Owner(OwnerKind.SYSTEMD, "vllm.service")
    first = GpuSnapshot(uuid="A", index=0, taken_at=0.0, processes=(GpuProcess(1, 1, owner=owner),), ports=(8000,))
    second = GpuSnapshot(uuid="B", index=1, taken_at=0.0, processes=None)
    node = NodeSnapshot(taken_at=0.0, gpus=(first, second))
    assert node.on_port(8000) == (first,)
    assert node.on_port(1) == ()
    assert node.gpu("B") is second
    assert node.gpu("C") is None
