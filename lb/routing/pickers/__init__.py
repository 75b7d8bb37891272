"""The strategies by the word that the policy uses."""

from __future__ import annotations

from lb.routing.picker import Picker
from lb.routing.pickers.least_cost import LeastCost
from lb.routing.pickers.least_requests import LeastRequests
from lb.routing.pickers.random_choice import RandomChoice
from lb.routing.pickers.round_robin import RoundRobin
from lb.routing.pickers.two_choices import TwoChoices

PICKERS: dict[str, Picker] = {
    "tidegate": LeastCost(),
    "round-robin": RoundRobin(),
    "random": RandomChoice(),
    "least-requests": LeastRequests(),
    "p2c": TwoChoices(),
}
