"""`python -m autoscaler.compiled`: compile the request path. Where that cannot be done, say so: all runs without."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from autoscaler.compiled import ROOT, SWITCH, build_folder, unusable
from autoscaler.compiled.build import build, obstacle

_NICENESS = 19
"""Beside a balancer that serves, a build takes only what is left."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m autoscaler.compiled", description=__doc__)
    parser.add_argument("--background", action="store_true", help="return at once; the next start finds the build")
    chosen = parser.parse_args(arguments)
    if unusable() is None:
        if not chosen.background:
            sys.stdout.write(f"{build_folder()} is up to date\n")
        return
    if chosen.background and os.environ.get(SWITCH) == "0":
        return
    reason = obstacle()
    if reason is not None:
        sys.stdout.write(f"The request path runs interpreted, at twice the CPU a request: {reason}\n")
        return
    if chosen.background:
        _start()
        return
    sys.stdout.write("Compiling the request path, a minute or two\n")
    sys.stdout.flush()
    sys.stdout.write(f"Done: {build()}; the next start uses it ({SWITCH}=0: not)\n")


def _start() -> None:
    """A session of its own: Ctrl-C ends the balancer in front, not this."""
    folder = build_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_name(folder.name + ".log")
    sys.stdout.write(
        f"Compiling the request path in the background, some minutes ({log}); until then it runs interpreted, and the\n"
        f"next start finds it: half the CPU a request. {SWITCH}=0 turns this off.\n"
    )
    with log.open("w") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "autoscaler.compiled"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    os.setpriority(os.PRIO_PROCESS, child.pid, _NICENESS)


if __name__ == "__main__":
    main()
