"""Collected only on purpose: these tests start real runtimes, which take minutes and gigabytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.runtimes.cache import built

if os.environ.get("TIDEGATE_RUNTIMES") != "1":
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all, and skip those whose runtime could not be built on this machine (`NEEDS` of their module)."""
    for item in items:
        if Path(__file__).parent not in item.path.parents or not isinstance(item, pytest.Function):
            continue
        item.add_marker(pytest.mark.runtimes)
        item.add_marker(pytest.mark.timeout(300))
        for name in item.module.NEEDS:
            if not built(name):
                item.add_marker(pytest.mark.skip(f"{name} could not be built here; tests/runtimes/build.py says why"))
