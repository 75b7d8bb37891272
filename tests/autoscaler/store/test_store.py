"""The thread: the loop never waits, order holds, a failing disk is counted."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from autoscaler.store import Bin, Store, StoredDecision, StoreError, StoreFile
from autoscaler.store import store as module
from autoscaler.store.store import Retention

WALL = 1_700_000_000.0
MINUTE = 1_699_999_980


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    one = Store(tmp_path / "s.db", wall=lambda: WALL)
    await one.start()
    yield one
    await one.close()


async def test_what_is_handed_over_is_there_for_the_next_question(store: Store) -> None:
    store.record_bins([Bin("m", MINUTE, 5, 1, 2)])
    store.save_state("controller", {"chat": {"x": 1}})
    store.record_decisions([StoredDecision("chat", WALL, "chat: hold 2", {"desired": 2})])
    assert await store.bins("m", 0) == [Bin("m", MINUTE, 5, 1, 2)]
    assert await store.models() == ["m"]
    assert await store.load_state("controller") == (WALL, {"chat": {"x": 1}})
    found = await store.decision("chat", WALL)
    assert found is not None
    assert found.sentence == "chat: hold 2"
    assert [one.at for one in await store.decisions("chat")] == [WALL]
    assert store.counts.written == 3


async def test_it_survives_a_restart(tmp_path: Path) -> None:
    first = Store(tmp_path / "s.db", wall=lambda: WALL)
    await first.start()
    first.save_state("controller", {"a": 1})
    await first.close()
    with pytest.raises(StoreError, match="closed"):
        await first.models()
    second = Store(tmp_path / "s.db", wall=lambda: WALL)
    await second.start()
    assert await second.load_state("controller") == (WALL, {"a": 1})
    await second.close()


async def test_a_disk_that_hangs_holds_up_nobody_and_its_backlog_is_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    monkeypatch.setattr(module, "_MOST_BACKLOG", 10)
    monkeypatch.setattr(StoreFile, "put_bins", _waiting(free, StoreFile.put_bins))
    began = time.perf_counter()
    for number in range(50):
        store.record_bins([Bin("m", MINUTE + 60 * number, 1, 1, 1)])
    assert time.perf_counter() - began < 1.0
    assert 39 <= store.counts.dropped <= 40
    free.set()
    assert 10 <= len(await store.bins("m", 0)) <= 11


def _waiting(free: threading.Event, work: Callable[..., int]) -> Callable[..., int]:
    def wait(*given: object, **named: object) -> int:
        free.wait(20.0)
        return work(*given, **named)

    return wait


async def test_a_full_disk_fails_writes_and_not_the_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(StoreFile, "put_state", full)
        store.save_state("controller", {"a": 1})
        assert await store.load_state("controller") is None
    assert store.counts.failed == 1
    store.save_state("controller", {"a": 2})
    assert await store.load_state("controller") == (WALL, {"a": 2})


async def test_damage_found_while_running_sets_the_file_aside(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    with monkeypatch.context() as patch:
        patch.setattr(StoreFile, "put_state", damaged)
        store.save_state("controller", {"a": 1})
        assert await store.load_state("controller") is None
    store.save_state("controller", {"a": 2})
    assert await store.load_state("controller") == (WALL, {"a": 2})
    assert (tmp_path / "s.db.damaged-20231114T221320").exists()


async def test_old_rows_go_by_themselves(tmp_path: Path) -> None:
    now = WALL
    one = Store(tmp_path / "s.db", wall=lambda: now, retention=Retention(bins_s=3600.0))
    await one.start()
    one.record_bins([Bin("m", MINUTE, 1, 1, 1)])
    assert len(await one.bins("m", 0)) == 1
    now = WALL + 7200.0
    one.record_bins([Bin("m", MINUTE + 7200, 1, 1, 1)])
    # Rows go after the write that was handed over.
    await one.models()
    assert [row.start_s for row in await one.bins("m", 0)] == [MINUTE + 7200]
    await one.close()


async def test_a_place_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    one = Store(tmp_path / "nowhere" / "s.db", wall=lambda: WALL)
    with pytest.raises(StoreError, match="nowhere"):
        await one.start()
    await one.close()
