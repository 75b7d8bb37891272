"""The request path compiled ahead of time: about half the CPU per request, from the same sources.

    make compiled                          # in a checkout; `make run` does it in the background
    TIDEGATE_COMPILED=1 pip install .      # a wheel for this platform that brings its build along

mypyc compiles a copy of `lb` (`autoscaler.compiled.build`), never in the tree. When Tidegate starts, that copy comes
first on `sys.path` if it was made from exactly these sources for this Python and C library; else the sources run.
`TIDEGATE_COMPILED=0` runs the sources in any case, `1` says on standard error why a build is not used.

Imported by every command before anything else: the standard library only.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

SWITCH = "TIDEGATE_COMPILED"
ROOT = Path(__file__).parents[2]
STAMP = "sources.sha256"
"""File of a build that holds the hash of what it was made from."""


def platform_tag() -> str:
    """This Python's ABI: what a build is for."""
    return str(sysconfig.get_config_var("SOABI"))


def build_folder(root: Path = ROOT) -> Path:
    """Where the build for this Python is, or would be: out of sight in a checkout, inside the package elsewhere."""
    if (root / "pyproject.toml").is_file():
        return root / ".cache" / "compiled" / platform_tag()
    return root / "autoscaler" / "compiled" / platform_tag()


def digest(root: Path = ROOT) -> str:
    """Hash of what a build depends on: the sources of `lb`, how they are compiled, the ABI and the C library."""
    found = hashlib.sha256(f"{platform_tag()} {_c_library()}\n".encode())
    found.update(Path(__file__).with_name("build.py").read_bytes())
    for path in sorted((root / "lb").rglob("*.py")):
        found.update(path.relative_to(root).as_posix().encode() + b"\0")
        found.update(path.read_bytes())
    return found.hexdigest()


def _c_library() -> str:
    """Name and version of the C library: a build made under a newer one would not load."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return ""  # musl says nothing of itself


def unusable(root: Path = ROOT) -> str | None:
    """Why there is no build that may be used, or None."""
    try:
        built = (build_folder(root) / STAMP).read_text()
    except OSError:
        return "there is no build for this Python (`python -m autoscaler.compiled` makes one)"
    if built != digest(root):
        return "the build was made from other sources (`python -m autoscaler.compiled` renews it)"
    return None


def activate(environ: Mapping[str, str], path: list[str], root: Path = ROOT) -> str | None:
    """Put a matching build first on `path`, unless `environ` forbids it. To be called before anything of `lb` is
    imported.

    Returns what is to be said if it was asked for in vain, or None.
    """
    asked = environ.get(SWITCH, "")
    if asked == "0":
        return None
    reason = unusable(root)
    if reason is None:
        path.insert(0, str(build_folder(root)))
        return None
    return f"{SWITCH}=1, but {reason}: running the sources" if asked == "1" else None


def described(environ: Mapping[str, str]) -> str:
    """What a command that starts with this environment runs: `compiled`, or `interpreted` and why."""
    reason = f"{SWITCH}=0" if environ.get(SWITCH) == "0" else unusable()
    return "compiled" if reason is None else f"interpreted: {reason}"
