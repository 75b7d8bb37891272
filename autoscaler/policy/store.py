"""Settings of what outlives the process."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lb.settings.durations import Seconds
from lb.settings.proxy import Section


class StoreSettings(Section):
    """Where demand history, what was learned and decisions are kept."""

    path: str | None = None
    """A file of its own; relative names lie beside the policy. None: `tidegate.db` in $STATE_DIRECTORY (which systemd
    sets), and where there is none nothing outlives the process."""
    history_s: Annotated[Seconds, Field(ge=86_400)] = 56 * 86_400.0
    """How long demand is kept: eight weeks show a weekly shape eight times, and take 3 MB a model."""
    decisions_s: Annotated[Seconds, Field(ge=3600)] = 30 * 86_400.0
    """How long decisions are kept that changed something or had a new reason."""
    ordinary_s: Annotated[Seconds, Field(ge=3600)] = 86_400.0
    """How long the decisions between them are kept: 4 MB a pool and day at the usual interval."""
