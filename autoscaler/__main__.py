"""`python -m autoscaler` is `tidegate`."""

from autoscaler.cli import main

main()
