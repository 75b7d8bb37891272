"""The filters, in the order in which they are applied."""

from __future__ import annotations

from lb.routing.filter import Filter
from lb.routing.filters.room import Room
from lb.routing.filters.untried import Untried

FILTERS: dict[str, Filter] = {"room": Room(), "untried": Untried()}
