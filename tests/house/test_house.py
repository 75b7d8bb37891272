"""The house rules that no linter knows. A failure names the file and what to do."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from autoscaler.actuators import ACTUATORS
from autoscaler.cli import COMMANDS
from forecaster.classics import CLASSICS
from forecaster.models import MODELS
from lb.routing.scorers import WEIGHTS
from lb.runtimes import RUNTIMES
from lb.sources import SOURCES
from lb.surfaces import SURFACES

ROOT = Path(__file__).parents[2]
PACKAGES = ("lb", "autoscaler", "forecaster", "nvml")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "types", "base", "manager", "misc"}


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


@cache
def tracked() -> tuple[Path, ...]:
    """Files under version control, or, in an unpacked archive, all that are not built."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return tuple(ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())
    hidden = {".venv", ".git", "__pycache__", "build"}
    return tuple(path for path in ROOT.rglob("*") if path.is_file() and not hidden & set(path.parts))


@cache
def text_of(*folders: str, suffix: str) -> str:
    """All files with this ending below these folders, as one text."""
    places = [ROOT / folder for folder in folders]
    return "\n".join(
        path.read_text() for path in tracked() if path.suffix == suffix and any(map(path.is_relative_to, places))
    )


@cache
def readmes() -> str:
    return "\n".join(path.read_text() for path in tracked() if path.name == "README.md")


def test_files_are_short() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in modules()
        if (lines := len(path.read_text().splitlines())) > MAX_FILE_LINES
    }
    assert not long, f"more than {MAX_FILE_LINES} lines; split by subject: {long}"


def test_functions_are_short() -> None:
    long = {}
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert not long, f"more than {MAX_FUNCTION_LINES} lines: {long}"


def test_module_names_say_what_is_inside() -> None:
    vague = [str(path.relative_to(ROOT)) for path in modules() if {path.stem, path.parent.name} & FORBIDDEN_NAMES]
    assert not vague, f"name the subject instead: {vague}"


def test_modules_and_public_things_are_explained() -> None:
    silent = []
    for path in modules():
        tree = ast.parse(path.read_text())
        name = str(path.relative_to(ROOT))
        if tree.body and ast.get_docstring(tree) is None:
            silent.append(name)
        silent += [
            f"{name}:{node.lineno} {node.name}"
            for node in tree.body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and ast.get_docstring(node) is None
        ]
    assert not silent, f"a line of explanation is missing: {silent}"


def test_nothing_is_left_to_do_and_no_test_is_skipped_for_ever() -> None:
    marks = re.compile("|".join((r"\bTODO\b", r"\bFIXME\b", r"\bXXX\b", r"NotImplementedError")))
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}" for path in modules() for match in marks.finditer(path.read_text())
    ]
    assert not found


MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|home/\w+|Users/\w+)/")
# Each pattern has a class of one letter, so that it does not match itself.
REGISTRY = re.compile(
    r"files\.pythonhoste[d]|pypi\.or[g]|registry\.npmj[s]|proxy\.golan[g]|deb\.debian\.or[g]"
    r"|releases/downloa[d]|resolve/mai[n]/|--(?:extra-)?index-ur[l]"
)


def test_no_machine_path_and_no_download_address_is_recorded() -> None:
    """A clone must work anywhere, and package addresses are the user's choice."""
    found = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" in data[:8192] or len(data) > 4 << 20:
            continue
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
            found += [
                f"{path.relative_to(ROOT)}:{number}: {match[0]}"
                for match in (MACHINE_PATH.search(line), REGISTRY.search(line))
                if match is not None
            ]
    assert not found


REGISTERED = {
    "actuator": sorted(ACTUATORS),
    "runtime": sorted(RUNTIMES),
    "scorer": sorted(WEIGHTS),
    "surface": sorted(str(name) for name in SURFACES),
    "source": sorted(SOURCES),
    "model": sorted(MODELS),
    "classic": sorted(CLASSICS),
}
ENTRIES = [(kind, name) for kind, names in REGISTERED.items() for name in names]


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_each_registered_thing_has_a_row_in_a_readme(kind: str, name: str) -> None:
    assert re.search(rf"^\|\s*`?{re.escape(name)}`?\s*\|", readmes(), re.MULTILINE), (
        f"no README of the repository has a table row that begins with `{name}`; add it to the table of the {kind}s"
    )


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_each_registered_thing_has_a_test(kind: str, name: str) -> None:
    words = rf"\b{re.escape(name)}\b|\b{re.escape(name.upper())}\b"
    assert re.search(words, text_of("tests", suffix=".py")), f"no test mentions the {kind} {name}"


@pytest.mark.parametrize("module", COMMANDS)
def test_each_command_is_in_the_readme(module: str) -> None:
    command = f"tidegate {module.replace('_', '-')}"
    assert command in (ROOT / "README.md").read_text(), f"README.md does not mention `{command}`"


@pytest.mark.parametrize("module", COMMANDS)
def test_each_command_has_a_test(module: str) -> None:
    name = module.replace("_", "-")
    assert re.search(rf"[\"' ]{name}[\"' ,]", text_of("tests", suffix=".py")), f"no test runs `tidegate {name}`"


def test_every_command_file_is_listed() -> None:
    files = {path.stem for path in (ROOT / "autoscaler" / "commands").glob("*.py")} - {"__init__"}
    public = {name for name in files if "def register(" in (ROOT / f"autoscaler/commands/{name}.py").read_text()}
    assert public == set(COMMANDS), "autoscaler.cli.COMMANDS lists what `tidegate --help` shows"


def test_each_package_and_deploy_has_a_readme() -> None:
    missing = [name for name in (*PACKAGES, "deploy") if not (ROOT / name / "README.md").is_file()]
    assert not missing, f"write what it is, its rules and its recipes: {missing}"


def test_the_top_level_stays_tidy() -> None:
    allowed = {
        "lb", "autoscaler", "forecaster", "nvml", "deploy", "tests", ".ci", "pyproject.toml", "README.md", "LICENSE",
        "CHANGELOG.md", "Makefile", ".gitignore",
    }  # fmt: skip
    found = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert found <= allowed, f"new entries at the top level: {sorted(found - allowed)}"
