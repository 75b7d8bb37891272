"""A discrete-event model of a fleet; pure, driven by model time."""
