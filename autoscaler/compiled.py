"""The request path compiled ahead of time, for those who have a C compiler: half the CPU per request, the same code.

    make compiled && TIDEGATE_COMPILED=1 tidegate lb --backend ...

mypyc compiles a copy of `lb` under `.cache/compiled/`, never in the tree. With `TIDEGATE_COMPILED=1` that copy comes
first on `sys.path`, if it was made from exactly these sources by this Python; else one line says why not, and the
sources themselves run.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

SWITCH = "TIDEGATE_COMPILED"
ROOT = Path(__file__).parents[1]
MODULES = (
    "lb/*.py", "lb/admission/*.py", "lb/cost/*.py", "lb/health/*.py", "lb/metrics/histogram.py",
    "lb/metrics/requests.py", "lb/proxy/*.py", "lb/routing/**/*.py", "lb/surfaces/failures.py", "lb/surfaces/fields.py",
    "lb/surfaces/progress.py", "lb/surfaces/prompt.py", "lb/surfaces/replies.py",
)  # fmt: skip
"""What a request passes through."""
INTERPRETED = (
    "lb/access_log.py", "lb/address.py", "lb/auth.py", "lb/clock.py", "lb/decode.py", "lb/exposition.py",
    "lb/gateway.py", "lb/log.py", "lb/proxy/server.py", "lb/runtime.py", "lb/runtime_reader.py", "lb/secrets.py",
    "lb/source.py", "lb/views.py", "lb/wire.py", "lb/yaml_document.py",
)  # fmt: skip
"""Of these, what runs rarely: compiling it would cost build time and bring nothing."""
_STAMP = "sources.sha256"
_SAID = 4000
"""Characters of a failed compiler's last words that are shown."""
_MYPY = "[mypy]\npython_version = {}.{}\nignore_missing_imports = True\n"
"""The strict check is `make lint`'s; this one only finds the types. No plugin: a settings class stays interpreted."""


def build_folder(root: Path = ROOT) -> Path:
    """Where the build for this Python is, or would be."""
    return root / ".cache" / "compiled" / str(sysconfig.get_config_var("SOABI"))


def digest(root: Path = ROOT) -> str:
    """Hash of all sources of `lb` and of the Python that runs."""
    found = hashlib.sha256(sys.version.encode())
    for path in sorted((root / "lb").rglob("*.py")):
        found.update(path.relative_to(root).as_posix().encode() + b"\0")
        found.update(path.read_bytes())
    return found.hexdigest()


def activate(environ: Mapping[str, str], path: list[str], root: Path = ROOT) -> str | None:
    """Put the build first on `path` if `environ` asks for it. To be called before anything of `lb` is imported.

    Returns why it was asked for in vain, or None.
    """
    if environ.get(SWITCH) != "1":
        return None
    folder = build_folder(root)
    try:
        built = (folder / _STAMP).read_text()
    except OSError:
        return f"{SWITCH}=1, but there is no build for this Python (`make compiled` makes one): running the sources"
    if built != digest(root):
        return f"{SWITCH}=1, but the build was made from other sources (`make compiled` renews it): running the sources"
    path.insert(0, str(folder))
    return None


def obstacle() -> str | None:
    """Why nothing can be compiled here, or None."""
    compiler = str(sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler})"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "the headers of this Python are not installed (Debian: python3-dev)"
    return None


def build(root: Path = ROOT, modules: Sequence[str] = MODULES, interpreted: Sequence[str] = INTERPRETED) -> Path:
    """Compile, in some minutes, and return the folder. Raises SystemExit where mypyc or the compiler fails."""
    stamp = digest(root)
    folder = build_folder(root)
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(root / "lb", fresh / "lb", ignore=shutil.ignore_patterns("__pycache__"))
    found = {path for pattern in modules for path in fresh.glob(pattern)}
    chosen = sorted(found - {fresh / name for name in interpreted})
    for path in chosen:
        path.write_text(native(path.read_text()))
    (fresh / "mypy.ini").write_text(_MYPY.format(*sys.version_info[:2]))
    _compile(fresh, [path.relative_to(fresh).as_posix() for path in chosen if path.stat().st_size])
    shutil.rmtree(fresh / "build")
    shutil.rmtree(fresh / ".mypy_cache", ignore_errors=True)
    (fresh / _STAMP).write_text(stamp)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder


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


def main() -> None:
    """`python -m autoscaler.compiled`: build. Where that cannot be done, say so: everything runs without."""
    reason = obstacle()
    if reason is not None:
        sys.stdout.write(f"Nothing is compiled: {reason}. Tidegate runs as it is.\n")
        return
    sys.stdout.write("Compiling the request path, a minute or two\n")
    sys.stdout.write(f"Done: {build()}; {SWITCH}=1 uses it\n")


if __name__ == "__main__":
    main()
