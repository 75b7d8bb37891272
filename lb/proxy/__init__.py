"""The data plane: sockets in, sockets out. It carries out what the balancer decides."""
