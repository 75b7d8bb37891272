"""Shells that bring in what replicas say of themselves: probes, and readings of their load."""
