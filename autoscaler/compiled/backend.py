"""PEP 517 build backend: setuptools', and with `TIDEGATE_COMPILED=1` a wheel that brings its build along.

Such a wheel is for one Python and platform; without the variable it is for all.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from autoscaler.compiled import ROOT, SWITCH

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

_TYPED = ("httptools", "msgspec", "pydantic", "xxhash")
"""Libraries whose types the compiler should know; what it does not know is called as from interpreted code."""


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """Beyond setuptools: to compile takes mypyc and some libraries for their types."""
    wanted: list[str] = list(build_meta.get_requires_for_build_wheel(config_settings))
    if _asked():
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        wanted += [one for one in project["project"]["dependencies"] if one.startswith(_TYPED)]
        wanted += [one for one in project["dependency-groups"]["dev"] if one.startswith("mypy[mypyc]")]
    return wanted


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """Returns the wheel's name. Raises SystemExit if a build was asked for and cannot be made."""
    name: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    if not _asked():
        return name
    from autoscaler.compiled.build import build, obstacle
    from autoscaler.compiled.wheel import bring_along

    reason = obstacle()
    if reason is not None:
        raise SystemExit(f"{SWITCH}=1: the request path cannot be compiled: {reason}")
    return bring_along(Path(wheel_directory, name), build()).name


def _asked() -> bool:
    return os.environ.get(SWITCH) == "1"
