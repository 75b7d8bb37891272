"""What a request will cost: tokens from bytes, the length of its answer, and seconds on a given replica."""

from __future__ import annotations

from lb.cost.output_length import OutputLengths
from lb.cost.replica_model import Coefficients, ReplicaModel
from lb.cost.tokens import TokenEstimator

__all__ = ["Coefficients", "OutputLengths", "ReplicaModel", "TokenEstimator"]
