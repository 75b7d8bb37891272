"""How many replicas, and why: pure decisions over values."""
