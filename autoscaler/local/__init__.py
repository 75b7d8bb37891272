"""Replicas on this machine: which port and GPUs they have, what is remembered of them, and whether they are up."""
