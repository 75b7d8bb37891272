"""Subcommands of `tidegate`. Each module has `register(app)`; `autoscaler.cli.COMMANDS` lists them."""
