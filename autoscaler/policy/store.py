"""Settings of what outlives the process."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lb.settings.durations import Seconds
from lb.settings.proxy import Section


class StoreSettings(Section):
    """Where demand history, what was learned and decisions are kept."""

    directory: Annotated[str, Field(min_length=1)] | None = None
    """Of the process alone, made if it is not there; relative names lie beside the policy. None: $STATE_DIRECTORY,
    which systemd sets; where there is none, history and what was learned end with the process, and local replicas,
    which do not, are remembered in $XDG_STATE_HOME/tidegate (~/.local/state/tidegate)."""
    history_s: Annotated[Seconds, Field(ge=86_400)] = 56 * 86_400.0
    """How long demand is kept: eight weeks show a weekly shape eight times, and take 4 MB a model."""
    decisions_s: Annotated[Seconds, Field(ge=3600)] = 30 * 86_400.0
    """How long decisions are kept that changed something or had a new reason."""
    ordinary_s: Annotated[Seconds, Field(ge=3600)] = 86_400.0
    """How long the decisions between them are kept: 4 MB a pool and day at the usual interval."""
