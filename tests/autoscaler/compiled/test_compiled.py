"""The switch to the compiled request path, and what is handed to the compiler."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from autoscaler import compiled
from autoscaler.cli import main
from autoscaler.compiled import ROOT, SWITCH, activate, build_folder, digest, native, obstacle

SOURCE = '''
from __future__ import annotations
from dataclasses import dataclass

@dataclass(slots=True)
class Pair:
    """Two numbers."""

    a: int
    b: float = 0.5

    def total(self) -> float:
        return self.a + self.b

@dataclass(frozen=True, slots=True)
class Point:
    x: int = 0
'''


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with one small module."""
    (tmp_path / "lb").mkdir()
    (tmp_path / "lb/__init__.py").write_text("")
    (tmp_path / "lb/pair.py").write_text(SOURCE)
    return tmp_path


def stamped(root: Path, stamp: str) -> Path:
    folder = build_folder(root)
    folder.mkdir(parents=True)
    (folder / "sources.sha256").write_text(stamp)
    return folder


@pytest.mark.parametrize("value", [None, "", "0"])
def test_nothing_happens_unasked(root: Path, value: str | None) -> None:
    stamped(root, digest(root))
    path = ["here"]
    assert activate({} if value is None else {SWITCH: value}, path, root) is None
    assert path == ["here"]


def test_a_fresh_build_comes_first(root: Path) -> None:
    folder = stamped(root, digest(root))
    path = ["here"]
    assert activate({SWITCH: "1"}, path, root) is None
    assert path == [str(folder), "here"]


def test_without_a_build_the_sources_run(root: Path) -> None:
    path = ["here"]
    reason = activate({SWITCH: "1"}, path, root)
    assert reason is not None
    assert "no build" in reason
    assert path == ["here"]


@pytest.mark.parametrize("change", ["edit", "add", "rename"])
def test_a_stale_build_is_not_used(root: Path, change: str) -> None:
    stamped(root, digest(root))
    module = root / "lb/pair.py"
    if change == "edit":
        module.write_text(SOURCE + "\nX = 1\n")
    elif change == "add":
        (root / "lb/other.py").write_text("")
    else:
        module.rename(root / "lb/couple.py")
    path = ["here"]
    reason = activate({SWITCH: "1"}, path, root)
    assert reason is not None
    assert "other sources" in reason
    assert path == ["here"]


def test_the_command_says_once_that_it_runs_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SWITCH, "1")
    monkeypatch.setattr(compiled, "build_folder", lambda root: tmp_path)
    monkeypatch.setattr(sys, "argv", ["tidegate", "version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    said = capsys.readouterr()
    assert said.out.startswith("tidegate ")
    assert said.err.count("\n") == 1
    assert "there is no build" in said.err


def test_records_keep_their_meaning() -> None:
    made: dict[str, object] = {"dataclass": dataclass, "__name__": __name__}
    text = native(SOURCE)
    assert "slots" not in text
    exec(compile(text, "pair.py", "exec"), made)
    pair = made["Pair"]
    assert callable(pair)
    assert pair(1) == pair(1, 0.5) == pair(b=0.5, a=1)
    assert pair(2, b=1.0).total() == 3.0
    assert repr(pair(1)) == "Pair(a=1, b=0.5)"
    with pytest.raises(TypeError):
        pair()
    assert "class Point:" in text
    assert "@dataclass(frozen=True)\nclass Point" in text


def test_no_compiler_is_said_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    monkeypatch.setattr(compiled, "build", lambda: pytest.fail("there is nothing to build with"))
    compiled.main()
    assert "there is no C compiler" in capsys.readouterr().out


def test_a_build_runs_or_is_refused_with_a_reason(root: Path) -> None:
    if (reason := obstacle()) is not None:
        assert "compiler" in reason or "headers" in reason
        return
    make = "import pathlib, sys, autoscaler.compiled as c; c.build(pathlib.Path(sys.argv[1]))"
    python(make, str(root))
    path: list[str] = []
    assert activate({SWITCH: "1"}, path, root) is None
    asked = (
        "from lb.pair import Pair; import lb.pair as m; types = Pair.__dict__['__annotations__'];"
        "print(m.__file__, Pair(2).total(), Pair(1) == Pair(1), *types.values())"
    )
    where, *rest = python(f"import sys; sys.path.insert(0, {path[0]!r}); {asked}").split()
    assert where.startswith(path[0])
    assert where.endswith(".so")
    assert rest == ["2.5", "True", "int", "float"]


def python(code: str, *arguments: str) -> str:
    """Run it in a process of its own; returns what it prints."""
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
