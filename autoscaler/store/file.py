"""One SQLite file, synchronously. Whoever holds it is its only user within the process.

Write-ahead logging lets `tidegate explain` read while the daemon writes. Decisions are compressed: their records repeat
the same words, which takes four fifths off them.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from autoscaler.store.rows import Bin, StoredDecision, StoreError

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE bins (
  model TEXT NOT NULL, start_s INTEGER NOT NULL, requests REAL NOT NULL, prompt_tokens REAL NOT NULL,
  output_tokens REAL NOT NULL, PRIMARY KEY (model, start_s)
) WITHOUT ROWID;
CREATE TABLE states (name TEXT PRIMARY KEY, at_s REAL NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE decisions (
  id INTEGER PRIMARY KEY, pool TEXT NOT NULL, at_s REAL NOT NULL, notable INTEGER NOT NULL, sentence TEXT NOT NULL,
  record BLOB NOT NULL
);
CREATE INDEX decisions_by_time ON decisions (pool, at_s);
"""
_BUSY_S = 5.0
"""How long to wait for another process, which can only be a reader's checkpoint."""
_MOST_ROWS = 1000
"""Decisions given back by one question."""


class StoreFile:
    """An open store. `path` None: in memory, which ends with the process."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        self._db = connection
        self.path = path

    @classmethod
    def open(cls, path: Path | None, *, wall: float) -> StoreFile:
        """Open or make it. A file that is damaged is set aside under another name, with an error in the log.

        Raises StoreError for a place that cannot be written, and for a file of a newer version.
        """
        try:
            return cls._try(path)
        except sqlite3.DatabaseError as error:
            if path is None or isinstance(error, sqlite3.OperationalError):
                raise _unusable(path, error) from None
            set_aside(path, str(error), wall)
        try:
            return cls._try(path)
        except sqlite3.Error as error:
            raise _unusable(path, error) from None

    @classmethod
    def _try(cls, path: Path | None) -> StoreFile:
        db = sqlite3.connect(":memory:" if path is None else path, timeout=_BUSY_S, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            # Losing the last second at a power failure is cheaper than a disk's sync with each decision.
            db.execute("PRAGMA synchronous=NORMAL")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"{path} was written by a newer Tidegate (schema {version}, this one knows {SCHEMA_VERSION}): "
                    f"run that one, or name another store.directory"
                )
            if version == 0:
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
            for (finding,) in db.execute("PRAGMA quick_check(1)").fetchall():
                if finding != "ok":
                    raise sqlite3.DatabaseError(finding)
        except BaseException:
            db.close()
            raise
        return cls(db, path)

    @classmethod
    def open_for_reading(cls, path: Path) -> StoreFile:
        """A store that a daemon may be writing. Raises StoreError if it is none or cannot be read."""
        if not path.is_file():
            raise StoreError(f"there is no store at {path}: give tidegate.db of the daemon's store.directory")
        try:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)
            (version,) = db.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            raise _unusable(path, error) from None
        if version != SCHEMA_VERSION:
            db.close()
            raise StoreError(f"{path} has schema {version}, this Tidegate reads {SCHEMA_VERSION}")
        return cls(db, path)

    def close(self) -> None:
        self._db.close()

    # ------------------------------------------------------------------ demand

    def put_bins(self, bins: Iterable[Bin], *, keep: bool = False) -> int:
        """Store them and return how many were valid. `keep`: what is there already stays (for back-filling)."""
        rows = [
            (one.model, one.start_s, one.requests, one.prompt_tokens, one.output_tokens) for one in bins if one.valid()
        ]
        verb = "IGNORE" if keep else "REPLACE"
        with self._transaction():
            self._db.executemany(f"INSERT OR {verb} INTO bins VALUES (?, ?, ?, ?, ?)", rows)  # noqa: S608 - one of two words
        return len(rows)

    def bins(self, model: str, since_s: float, until_s: float | None = None) -> list[Bin]:
        """Bins of one model that start in [since_s, until_s), in order."""
        until = 1e18 if until_s is None else until_s
        found = self._db.execute(
            "SELECT model, start_s, requests, prompt_tokens, output_tokens FROM bins "
            "WHERE model = ? AND start_s >= ? AND start_s < ? ORDER BY start_s",
            (model, since_s, until),
        )
        return [Bin(*row) for row in found]

    def models(self) -> list[str]:
        """Models with any history."""
        return [model for (model,) in self._db.execute("SELECT DISTINCT model FROM bins ORDER BY model")]

    # ------------------------------------------------------------------ state

    def put_state(self, name: str, state: str, at: float) -> None:
        """`state` is JSON; `at` epoch seconds."""
        self._db.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", (name, at, state))

    def state(self, name: str) -> tuple[float, dict[str, object]] | None:
        """(when it was saved in epoch seconds, the state); None: there is none, or it cannot be read."""
        row = self._db.execute("SELECT at_s, state FROM states WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        try:
            value = json.loads(row[1])
        except ValueError:
            return None
        return (float(row[0]), value) if isinstance(value, dict) else None

    # ------------------------------------------------------------------ decisions

    def put_decisions(self, decisions: Iterable[StoredDecision]) -> None:
        rows = [
            (one.pool, one.at, int(one.notable), one.sentence, zlib.compress(json.dumps(one.record).encode(), 6))
            for one in decisions
        ]
        with self._transaction():
            self._db.executemany(
                "INSERT INTO decisions (pool, at_s, notable, sentence, record) VALUES (?, ?, ?, ?, ?)", rows
            )

    def decisions(self, pool: str, since_s: float, until_s: float, limit: int = 100) -> list[StoredDecision]:
        """The newest decisions on a pool within [since_s, until_s], newest first."""
        found = self._db.execute(
            "SELECT pool, at_s, sentence, record, notable FROM decisions WHERE pool = ? AND at_s >= ? AND at_s <= ? "
            "ORDER BY at_s DESC, id DESC LIMIT ?",
            (pool, since_s, until_s, max(0, min(limit, _MOST_ROWS))),
        )
        return [StoredDecision(one, at, text, _record(blob), bool(kept)) for one, at, text, blob, kept in found]

    def decision(self, pool: str, at: float) -> StoredDecision | None:
        """The decision that was in force at `at`: the last one before it; None: none is known."""
        found = self.decisions(pool, -1e18, at, 1)
        return found[0] if found else None

    def pools(self) -> list[str]:
        """Pools with any decision."""
        return [pool for (pool,) in self._db.execute("SELECT DISTINCT pool FROM decisions ORDER BY pool")]

    # ------------------------------------------------------------------ upkeep

    def expire(self, bins_before_s: float, notable_before_s: float, ordinary_before_s: float) -> int:
        """Remove what is older (epoch seconds); returns how many rows went."""
        with self._transaction():
            gone = self._db.execute("DELETE FROM bins WHERE start_s < ?", (bins_before_s,)).rowcount
            gone += self._db.execute("DELETE FROM decisions WHERE at_s < ?", (notable_before_s,)).rowcount
            gone += self._db.execute(
                "DELETE FROM decisions WHERE NOT notable AND at_s < ?", (ordinary_before_s,)
            ).rowcount
        return gone

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """All of it or nothing. The connection is in autocommit otherwise."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._db.execute("COMMIT")
        elif self._db.in_transaction:
            self._db.execute("ROLLBACK")


def set_aside(path: Path, why: str, wall: float) -> Path:
    """Rename a damaged file and what belongs to it, and say so; returns the new name of the file."""
    stamp = datetime.fromtimestamp(wall, UTC).strftime("%Y%m%dT%H%M%S")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    if aside.exists():
        # The second within a second: the first one is the one with the history.
        aside = aside.with_name(f"{aside.name}-again")
    try:
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
    except OSError as error:
        raise StoreError(f"{path} is damaged ({why}) and cannot be renamed: {error.strerror}") from None
    log.error(
        "the store is damaged; it was set aside and a new one is begun, so that demand history and what was learned "
        "start anew",
        extra={"store": str(path), "kept_as": str(aside), "reason": why},
    )
    return aside


def _record(blob: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(zlib.decompress(blob))
    except (zlib.error, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _unusable(path: Path | None, error: sqlite3.Error) -> StoreError:
    return StoreError(f"the store {path or 'in memory'} cannot be used: {error}; store.directory must name a directory "
                      f"that this user may write")  # fmt: skip
