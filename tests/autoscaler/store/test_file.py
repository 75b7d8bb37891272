"""One file: what goes in comes out, and what is damaged, foreign or newer is told apart."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from autoscaler.store import Bin, StoredDecision, StoreError, StoreFile
from autoscaler.store.file import SCHEMA_VERSION

WALL = 1_700_000_000.0
MINUTE = 1_699_999_980


def a_bin(start_s: int = MINUTE, model: str = "m", requests: float = 5.0) -> Bin:
    return Bin(model, start_s, requests, 100.0, 50.0)


def a_decision(at: float, *, notable: bool = True, pool: str = "chat") -> StoredDecision:
    return StoredDecision(pool, at, f"{pool}: hold 2 at {at:.0f}", {"desired": 2, "proposals": []}, notable)


def test_bins_come_back_in_order_with_their_gaps(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    file = StoreFile.open(path, wall=WALL)
    file.put_bins([a_bin(MINUTE + 180), a_bin(MINUTE), a_bin(MINUTE + 60, model="other")])
    file.close()
    again = StoreFile.open(path, wall=WALL)
    assert [one.start_s for one in again.bins("m", MINUTE)] == [MINUTE, MINUTE + 180]
    assert again.bins("m", MINUTE + 1, MINUTE + 180) == []
    assert again.models() == ["m", "other"]


def test_a_minute_is_replaced_unless_history_is_filled_in() -> None:
    file = StoreFile.open(None, wall=WALL)
    file.put_bins([a_bin(requests=5.0)])
    file.put_bins([a_bin(requests=9.0)], keep=True)
    assert file.bins("m", 0)[0].requests == 5.0
    file.put_bins([a_bin(requests=9.0)])
    assert file.bins("m", 0)[0].requests == 9.0


@pytest.mark.parametrize(
    "bad",
    [
        Bin("m", MINUTE + 1, 1, 1, 1),
        Bin("m", MINUTE, float("nan"), 1, 1),
        Bin("m", MINUTE, 1, -1, 1),
        Bin("m", MINUTE, 1, 1, float("inf")),
    ],
)
def test_numbers_that_make_no_sense_are_not_stored(bad: Bin) -> None:
    file = StoreFile.open(None, wall=WALL)
    assert file.put_bins([bad, a_bin(MINUTE + 60)]) == 1
    assert [one.start_s for one in file.bins("m", 0)] == [MINUTE + 60]


def test_state_is_replaced_and_dated() -> None:
    file = StoreFile.open(None, wall=WALL)
    assert file.state("controller") is None
    file.put_state("controller", '{"a": 1}', WALL)
    file.put_state("controller", '{"a": 2}', WALL + 1)
    assert file.state("controller") == (WALL + 1, {"a": 2})
    file.put_state("controller", "[1", WALL + 2)
    assert file.state("controller") is None


def test_the_decision_in_force_is_the_last_one_before() -> None:
    file = StoreFile.open(None, wall=WALL)
    file.put_decisions([a_decision(WALL), a_decision(WALL + 15), a_decision(WALL + 30, pool="other")])
    found = file.decision("chat", WALL + 20)
    assert found is not None
    assert found.at == WALL + 15
    assert found.record == {"desired": 2, "proposals": []}
    assert file.decision("chat", WALL - 1) is None
    assert [one.at for one in file.decisions("chat", 0, WALL + 99)] == [WALL + 15, WALL]
    assert file.pools() == ["chat", "other"]


def test_what_is_old_goes_and_ordinary_decisions_go_first() -> None:
    file = StoreFile.open(None, wall=WALL)
    file.put_bins([a_bin(MINUTE), a_bin(MINUTE + 600)])
    file.put_decisions([a_decision(WALL), a_decision(WALL + 5, notable=False), a_decision(WALL + 20, notable=False)])
    assert file.expire(MINUTE + 60, WALL - 5, WALL + 10) == 2
    assert [one.start_s for one in file.bins("m", 0)] == [MINUTE + 600]
    assert [one.at for one in file.decisions("chat", 0, 1e18)] == [WALL + 20, WALL]


@pytest.mark.parametrize(
    "content", [b"this is not a database at all, but long enough to be taken for a header" * 90, None]
)
def test_a_damaged_file_is_set_aside(tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "s.db"
    if content is None:
        good = StoreFile.open(path, wall=WALL)
        good.put_bins([a_bin(MINUTE + 60 * n) for n in range(5000)])
        good.close()
        data = bytearray(path.read_bytes())
        data[4096 * 3 : 4096 * 6] = b"\xff" * 4096 * 3
        content = bytes(data)
    path.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        file = StoreFile.open(path, wall=WALL)
    assert file.models() == []
    aside = tmp_path / "s.db.damaged-20231114T221320"
    assert aside.read_bytes()[:40] == content[:40]
    assert caplog.records[0].store == str(path)  # type: ignore[attr-defined]
    assert caplog.records[0].kept_as == str(aside)  # type: ignore[attr-defined]


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    StoreFile.open(path, wall=WALL).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(StoreError, match="newer Tidegate"):
        StoreFile.open(path, wall=WALL)
    assert [one.name for one in tmp_path.iterdir()] == ["s.db"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere/s\.db.*store\.directory"):
        StoreFile.open(tmp_path / "nowhere" / "s.db", wall=WALL)


def test_a_reader_sees_what_a_writer_has_written(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with pytest.raises(StoreError, match="there is no store"):
        StoreFile.open_for_reading(path)
    writer = StoreFile.open(path, wall=WALL)
    writer.put_decisions([a_decision(WALL)])
    reader = StoreFile.open_for_reading(path)
    assert reader.pools() == ["chat"]
    writer.put_decisions([a_decision(WALL + 15)])
    assert len(reader.decisions("chat", 0, 1e18)) == 2
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.put_state("x", "{}", WALL)


def test_a_failed_write_leaves_nothing_behind() -> None:
    file = StoreFile.open(None, wall=WALL)
    with pytest.raises(TypeError):
        file.put_decisions([a_decision(WALL), StoredDecision("chat", WALL, "x", {"bad": object()})])
    assert file.pools() == []
    file.put_decisions([a_decision(WALL)])
    assert file.pools() == ["chat"]
