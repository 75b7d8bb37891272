"""`make run`: simulated replicas, the balancer before them and some traffic, with no set-up at all."""
