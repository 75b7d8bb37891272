"""A change of the policy file is noticed once, at rest, by content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from autoscaler.policy.watch import FileWatch


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def looks(watch: FileWatch, times: int) -> list[bool]:
    return [watch.changed() for _ in range(times)]


def test_an_unchanged_file_is_no_change(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("a")
    assert looks(FileWatch(file, digest("a")), 4) == [False] * 4


def test_a_touched_file_is_no_change(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("a")
    watch = FileWatch(file, digest("a"))
    watch.changed()
    file.write_text("a")
    assert looks(watch, 3) == [False] * 3


def test_a_change_counts_once_and_only_at_rest(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("a")
    watch = FileWatch(file, digest("a"))
    watch.changed()
    file.write_text("a: half wri")
    assert not watch.changed()
    file.write_text("a: half written, and now whole")
    assert looks(watch, 4) == [False, True, False, False]


def test_h11_a_symlink_swap_is_one_change(tmp_path: Path) -> None:
    """Kubernetes swaps `..data`, two links above the file, while the file's own path never changes."""
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "p.yaml").write_text(version)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "p.yaml").symlink_to("..data/p.yaml")
    watch = FileWatch(tmp_path / "p.yaml", digest("v1"))
    assert not watch.changed()
    (tmp_path / "..new").symlink_to("v2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert looks(watch, 5).count(True) == 1


def test_a_missing_file_is_no_change_until_it_is_back(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("a")
    watch = FileWatch(file, digest("a"))
    watch.changed()
    file.unlink()
    assert looks(watch, 3) == [False] * 3
    file.write_text("b")
    assert looks(watch, 4) == [False, True, False, False]


def test_going_back_to_the_old_content_is_a_change(tmp_path: Path) -> None:
    """After a refused version the old text must be read again, so that the refusal is cleared."""
    file = tmp_path / "p.yaml"
    file.write_text("bad")
    watch = FileWatch(file, digest("good"))
    assert looks(watch, 2) == [False, True]
    file.write_text("good")
    assert looks(watch, 3) == [False, True, False]


def test_what_was_handled_another_way_is_no_change(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("new")
    watch = FileWatch(file, digest("old"))
    assert not watch.changed()
    watch.take()
    assert looks(watch, 3) == [False] * 3
    file.unlink()
    watch.take()
    assert looks(watch, 2) == [False] * 2
