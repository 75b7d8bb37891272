"""A replica over its cards, also when one of them is gone."""

from __future__ import annotations

from nvml.drivers.fake import FakeDriver
from nvml.health import NodeHistory, fold
from nvml.placement import Standing, cards_of, standing
from nvml.sample import GpuProcess, GpuState, MigInstance, NodeSnapshot, ThrottleReason
from nvml.settings import HealthSettings

GIB = 1 << 30


class Node:
    """Four cards: port 8000 on the first two, 8001 on the third, nobody on the fourth."""

    def __init__(self) -> None:
        self.driver = FakeDriver(4)
        for index, port in ((0, 8000), (1, 8000), (2, 8001)):
            self.driver.change(index, processes=(GpuProcess(100 + index, 60 * GIB, ports=(port,)),))
        self.history, self.now = NodeHistory(), 0.0

    def sample(self) -> NodeSnapshot:
        self.now += 1
        self.history, node = fold(self.history, self.driver.read(self.now), self.now, HealthSettings())
        return node


def test_all_well():
    node = Node().sample()
    gpus = cards_of(node, port=8000)
    assert [gpu.index for gpu in gpus] == [0, 1]
    view = standing(gpus, now=3.0)
    assert (view.state, view.takes_new_work, view.speed_ratio, view.age_s) == (GpuState.OK, True, 1.0, 2.0)
    assert view.headroom_ratio == 19 / 80
    assert view.gpus == tuple(gpu.uuid for gpu in gpus)


def test_the_replica_on_a_lost_card_is_still_known_and_others_are_untouched():
    node = Node()
    node.sample()
    node.driver.lose(1)
    lost = node.sample()
    assert [gpu.index for gpu in cards_of(lost, port=8000)] == [0, 1]
    view = standing(cards_of(lost, port=8000), node.now)
    assert (view.state, view.takes_new_work) == (GpuState.LOST, False)
    assert view.reasons[0].code.value == "lost"
    assert view.headroom_ratio is None
    assert standing(cards_of(lost, port=8001), node.now).state is GpuState.OK


def test_the_replica_on_a_vanished_card_is_still_known():
    node = Node()
    node.sample()
    del node.driver.gpus[2]
    node.sample()
    view = standing(cards_of(node.sample(), port=8001), node.now)
    assert (view.state, view.takes_new_work) == (GpuState.LOST, False)


def test_the_slowest_card_sets_the_pace():
    node = Node()
    node.driver.change(1, throttle_reasons=(ThrottleReason.HW_THERMAL,), sm_clock_mhz=990)
    for _ in range(3):
        view = standing(cards_of(node.sample(), port=8000), node.now)
    assert (view.state, view.speed_ratio, view.takes_new_work) == (GpuState.DEGRADED, 0.5, True)


def test_a_moved_replica_leaves_its_old_card():
    node = Node()
    node.sample()
    node.driver.change(2, processes=())
    node.driver.change(3, processes=(GpuProcess(200, GIB, ports=(8001,)),))
    assert [gpu.index for gpu in cards_of(node.sample(), port=8001)] == [3]


def test_cards_by_uuid_and_by_instance():
    node = Node()
    node.driver.change(3, mig=(MigInstance("MIG-7", 0),))
    snapshot = node.sample()
    uuid = snapshot.gpus[2].uuid
    assert [gpu.index for gpu in cards_of(snapshot, port=8000, uuids=[uuid, "MIG-7"])] == [2, 3]


def test_nothing_is_known_of_a_replica_without_cards():
    node = Node().sample()
    assert standing(cards_of(node, port=9999), 0.0) == Standing()
    assert standing(cards_of(node), 0.0).takes_new_work
