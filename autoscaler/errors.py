"""What ends the process on purpose."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILURE = 1
"""Something outside failed: a port in use, a part of the daemon that stopped."""
EXIT_BAD_INPUT = 2
"""The command line or the policy is wrong; trying again will not help."""


class StartError(Exception):
    """The process cannot start; the message is one line that says what is wrong and what to do."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code
