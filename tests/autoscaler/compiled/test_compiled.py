"""The switch to the compiled request path, and what is handed to the compiler."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from autoscaler import compiled
from autoscaler.cli import main
from autoscaler.compiled import ROOT, STAMP, SWITCH, activate, build_folder, digest
from autoscaler.compiled import __main__ as command
from autoscaler.compiled.build import native, obstacle
from autoscaler.compiled.wheel import bring_along

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
    (folder / STAMP).write_text(stamp)
    return folder


@pytest.mark.parametrize("value", [None, "", "1"])
def test_a_matching_build_is_used_unasked(root: Path, value: str | None) -> None:
    folder = stamped(root, digest(root))
    path = ["here"]
    assert activate({} if value is None else {SWITCH: value}, path, root) is None
    assert path == [str(folder), "here"]


def test_it_can_be_turned_off(root: Path) -> None:
    stamped(root, digest(root))
    path = ["here"]
    assert activate({SWITCH: "0"}, path, root) is None
    assert path == ["here"]


def test_nothing_is_said_of_a_build_that_nobody_asked_for(root: Path) -> None:
    path = ["here"]
    assert activate({}, path, root) is None
    stamped(root, "of other sources")
    assert activate({}, path, root) is None
    assert path == ["here"]


def test_a_checkout_keeps_builds_out_of_sight_and_an_installed_package_inside(root: Path) -> None:
    assert build_folder(root).is_relative_to(root / "autoscaler/compiled")
    (root / "pyproject.toml").write_text("")
    assert build_folder(root).is_relative_to(root / ".cache")


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
    monkeypatch.setattr(compiled, "build_folder", lambda root=ROOT: tmp_path)
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


@pytest.mark.parametrize("arguments", [[], ["--background"]])
def test_no_compiler_is_said_in_one_line_and_is_no_failure(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(SWITCH)
    monkeypatch.setattr(compiled.build.shutil, "which", lambda name: None)
    monkeypatch.setattr(command, "unusable", lambda: "there is no build")
    for what in ("build", "_start"):
        monkeypatch.setattr(command, what, lambda: pytest.fail("there is nothing to build with"))
    command.main(arguments)
    said = capsys.readouterr().out
    assert "there is no C compiler" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("missing", "switch", "starts"), [("no build", "", 1), ("no build", "0", 0), (None, "", 0)])
def test_a_build_begins_in_the_background_only_where_it_is_missing(
    missing: str | None, switch: str, starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    monkeypatch.setenv(SWITCH, switch)
    monkeypatch.setattr(command, "obstacle", lambda: None)
    monkeypatch.setattr(command, "unusable", lambda: missing)
    monkeypatch.setattr(command, "_start", lambda: begun.append(1))
    command.main(["--background"])
    assert len(begun) == starts


def test_a_wheel_brings_its_build_along(tmp_path: Path, root: Path) -> None:
    folder = stamped(root, "stamp")
    (folder / "lb").mkdir()
    (folder / "lb/pair.py").write_text(SOURCE)
    pure = tmp_path / "tidegate-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pure, "w") as wheel:
        wheel.writestr("lb/pair.py", SOURCE)
        wheel.writestr("tidegate-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tidegate-1.0.dist-info/RECORD", "lb/pair.py,,\n")
    made = bring_along(pure, folder)
    assert not pure.exists()
    assert re.fullmatch(r"tidegate-1\.0-cp3\d+-cp3\d+t?-\w+\.whl", made.name)
    with zipfile.ZipFile(made) as wheel:
        names = wheel.namelist()
        record = wheel.read("tidegate-1.0.dist-info/RECORD").decode()
        described = wheel.read("tidegate-1.0.dist-info/WHEEL").decode().splitlines()
        assert wheel.read(f"autoscaler/compiled/{folder.name}/lb/pair.py").decode() == SOURCE
    assert "Root-Is-Purelib: false" in described
    assert [line for line in described if line.startswith("Tag:")] == ["Tag: " + made.stem.split("-", 2)[2]]
    assert [line.partition(",")[0] for line in record.splitlines()] == names
    digest_of = base64.urlsafe_b64encode(hashlib.sha256(SOURCE.encode()).digest()).rstrip(b"=").decode()
    assert f"lb/pair.py,sha256={digest_of},{len(SOURCE.encode())}\n" in record


def test_a_build_runs_or_is_refused_with_a_reason(root: Path) -> None:
    if (reason := obstacle()) is not None:
        assert "compiler" in reason or "headers" in reason
        return
    make = "import pathlib, sys, autoscaler.compiled.build as c; c.build(pathlib.Path(sys.argv[1]))"
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
