from __future__ import annotations

import pytest

from tests.lb.balancer.driver import Box, settings


@pytest.fixture
def box() -> Box:
    return Box(settings())
