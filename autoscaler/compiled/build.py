"""Compiling the request path: a copy of `lb`, prepared for mypyc."""

from __future__ import annotations

import ast
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from autoscaler.compiled import ROOT, STAMP, build_folder, digest, unusable

MODULES = (
    "lb/*.py", "lb/admission/*.py", "lb/cost/*.py", "lb/health/*.py", "lb/metrics/histogram.py",
    "lb/metrics/requests.py", "lb/proxy/*.py", "lb/routing/**/*.py", "lb/surfaces/failures.py", "lb/surfaces/fields.py",
    "lb/surfaces/long_strings.py", "lb/surfaces/progress.py", "lb/surfaces/prompt.py", "lb/surfaces/replies.py",
)  # fmt: skip
"""What a request passes through."""
INTERPRETED = (
    "lb/address.py", "lb/auth.py", "lb/clock.py", "lb/decode.py", "lb/exposition.py",
    "lb/gateway.py", "lb/log.py", "lb/proxy/server.py", "lb/runtime.py", "lb/runtime_reader.py", "lb/secrets.py",
    "lb/source.py", "lb/views.py", "lb/wire.py", "lb/yaml_document.py",
)  # fmt: skip
"""Of these, what runs rarely: compiling it would cost build time and bring nothing."""
_SAID = 4000
"""Characters of a failed compiler's last words that are shown."""
_MYPY = "[mypy]\npython_version = {}.{}\nignore_missing_imports = True\n"
"""The strict check is `make lint`'s; this one only finds the types. No plugin: a settings class stays interpreted."""


def obstacle() -> str | None:
    """Why nothing can be compiled here, or None."""
    compiler = str(sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler})"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "the headers of this Python are not installed (Debian: python3-dev)"
    if importlib.util.find_spec("mypyc") is None:
        return "mypyc is not installed (pip install 'mypy[mypyc]')"
    return None


def build(root: Path = ROOT, modules: Sequence[str] = MODULES, interpreted: Sequence[str] = INTERPRETED) -> Path:
    """Compile, in some minutes, unless that is done; returns the folder.

    Waits for a build that another process makes. Raises SystemExit where mypyc or the compiler fails, OSError where the
    folder cannot be written.
    """
    folder = build_folder(root)
    with _alone(folder.with_name(folder.name + ".lock")):
        if unusable(root) is None:
            return folder
        fresh = folder.with_name(folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(root / "lb", fresh / "lb", ignore=shutil.ignore_patterns("__pycache__"))
        stamp = digest(fresh)  # of what was copied: the sources may change meanwhile
        found = {path for pattern in modules for path in fresh.glob(pattern)}
        chosen = sorted(found - {fresh / name for name in interpreted})
        for path in chosen:
            path.write_text(native(path.read_text()))
        (fresh / "mypy.ini").write_text(_MYPY.format(*sys.version_info[:2]))
        _compile(fresh, [path.relative_to(fresh).as_posix() for path in chosen if path.stat().st_size])
        shutil.rmtree(fresh / "build")
        shutil.rmtree(fresh / ".mypy_cache", ignore_errors=True)
        (fresh / STAMP).write_text(stamp)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    return folder


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One build of a folder at a time; the lock goes with the process that holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(folder: Path, modules: list[str]) -> None:
    """Raises SystemExit with what mypyc or the compiler said."""
    command = [sys.executable, "-m", "mypyc", "--config-file", "mypy.ini", *modules]
    options = {"MYPYC_OPT_LEVEL": "3", "MYPYC_DEBUG_LEVEL": "0"}
    ran = subprocess.run(  # noqa: S603 - our own interpreter and file names
        command, cwd=folder, env=os.environ | options, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise SystemExit(f"{ran.stdout[-_SAID:]}{ran.stderr[-_SAID:]}\nThe request path could not be compiled")


def native(source: str) -> str:
    """`source` with its dataclasses as mypyc wants them.

    `slots=True` makes a second class, which a native one does not survive; a native class has no `__dict__` anyway.
    The `__init__` that `dataclass` writes is interpreted even in a compiled module, so that of plain records is
    written out. It also forgets the types of most fields, which the API document is made of.
    """
    lines = source.splitlines()
    types: list[str] = []
    for found in reversed([node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]):
        for mark in found.decorator_list:
            if not isinstance(mark, ast.Call) or ast.unparse(mark.func) != "dataclass":
                continue
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in mark.keywords if keyword.arg != "slots"}
            fields = [node for node in found.body if isinstance(node, ast.AnnAssign)]
            said = {ast.unparse(one.target): ast.unparse(one.annotation) for one in fields}
            types.append(f'setattr({found.name}, "__annotations__", {said!r})')
            made = any(node.value is not None and isinstance(node.value, ast.Call) for node in fields)
            if "frozen" not in options and not made:
                options["init"] = "False"
                lines[found.end_lineno : found.end_lineno] = _constructor(fields)
            lines[mark.lineno - 1] = f"@dataclass({', '.join(f'{name}={value}' for name, value in options.items())})"
    return "\n".join([*lines, *types]) + "\n"


def _constructor(fields: Sequence[ast.AnnAssign]) -> list[str]:
    named = [
        f"{ast.unparse(one.target)}: {ast.unparse(one.annotation)}"
        + (f" = {ast.unparse(one.value)}" if one.value is not None else "")
        for one in fields
    ]
    names = [ast.unparse(one.target) for one in fields]
    return [
        f"    def __init__(self, {', '.join(named)}) -> None:",
        *(f"        self.{name} = {name}" for name in names),
    ]
