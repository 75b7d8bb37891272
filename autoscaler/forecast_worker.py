"""The process that forecasts: reads bins from the socket that is its standard input, and answers there with forecasts.

Of its own, as a fit takes longer than the event loop may be held, and because what computes may hang, crash or take all
memory. It holds one forecaster per pool and nothing that could not be made anew from history. It ends with its parent.

    python -m autoscaler.forecast_worker      # by the daemon only
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from autoscaler.forecast_wire import SIZES, Answer, Ask, Setup, sizes_of
from autoscaler.known_events import known_events
from forecaster.events import Event
from forecaster.forecast import Forecaster
from forecaster.history import BIN_S, BINS_MOST

_NICE = 10
"""Requests go first: half of the way to the lowest priority, at which a busy machine would leave it nothing."""
_AHEAD_S = 2 * 86_400
"""Events are looked up from the oldest history to beyond the longest horizon, which is a day."""
_LOOK_UP_EVERY_S = 3600.0
_PARENT_DIES = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


class KnownEvents:
    """Events of the policy and its calendars; files that changed are read again."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._found: tuple[Event, ...] = ()
        self.problems: tuple[str, ...] = ()
        self._looked_s = float("-inf")
        self._files: list[object] = []

    def at(self, now_s: float) -> Sequence[Event]:
        """Those that matter at `now_s`, epoch seconds."""
        setup = self._setup
        base = Path(setup.base)
        files = [_stamp(base / one.file) for one in setup.calendars]
        if files != self._files or abs(now_s - self._looked_s) >= _LOOK_UP_EVERY_S:
            known = known_events(
                setup.events, setup.calendars, base, since_s=now_s - BINS_MOST * BIN_S, until_s=now_s + _AHEAD_S
            )
            self._found, self.problems = known.events, known.problems
            self._looked_s, self._files = now_s, files
        return self._found


class Work:
    """Everything but the socket."""

    def __init__(self, setup: Setup, problems: Sequence[str] = ()) -> None:
        self._setup = setup
        self._events = KnownEvents(setup)
        self._limits = tuple(problems)
        self._forecasters: dict[str, Forecaster] = {}

    def answer(self, ask: Ask) -> Answer:
        """Learn, and forecast. A forecaster that fails or outgrows the memory is dropped, the others go on."""
        began = time.process_time()
        try:
            made = self._answer(ask)
        except MemoryError:
            made = Answer(error=f"the forecaster takes more than forecast.memory ({self._setup.memory_bytes} bytes)")
        except Exception as error:
            made = Answer(error=f"the forecaster failed: {type(error).__name__}: {error}")
        if not made.error and _rss_bytes() > self._setup.memory_bytes:
            made = Answer(error=f"the forecasters take more than forecast.memory ({self._setup.memory_bytes} bytes)")
        if made.error:
            self._forecasters.pop(ask.pool, None)
            gc.collect()
        return Answer(
            made.forecast, made.changes, (*self._limits, *self._events.problems), made.error,
            time.process_time() - began, _rss_bytes(),
        )  # fmt: skip

    def _answer(self, ask: Ask) -> Answer:
        events = self._events.at(ask.now_s)
        gone = self._forecasters.keys() - set(ask.pools)
        for pool in (*gone, *([ask.pool] if ask.begin else [])):
            self._forecasters.pop(pool, None)
        forecaster = self._forecasters.setdefault(ask.pool, Forecaster(self._setup.settings))
        changes = forecaster.observe(ask.series, events)
        return Answer(forecaster.forecast(ask.now_s, events), tuple(changes))


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Until the parent closes the socket."""
    first = _read(source)
    if first is None:
        return
    setup = Setup.unpack(*first)
    work = Work(setup, _limit(setup.memory_bytes))
    _write(sink, Answer(rss_bytes=_rss_bytes()))
    while (message := _read(source)) is not None:
        _write(sink, work.answer(Ask.unpack(*message)))


def main() -> None:
    """Begin, with the parent's socket on standard input."""
    _end_with_parent()
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(0), "wb")
    # Only the two hold it from here on; whatever a library prints goes elsewhere.
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    # The parent decides when to end; Ctrl-C in its terminal is meant for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(source, sink)


def _read(source: BinaryIO) -> tuple[bytes, bytes] | None:
    sizes = source.read(SIZES.size)
    if len(sizes) < SIZES.size:
        return None
    head, body = sizes_of(sizes)
    return source.read(head), source.read(body)


def _write(sink: BinaryIO, answer: Answer) -> None:
    sink.write(answer.pack())
    sink.flush()


def _limit(memory_bytes: int) -> list[str]:
    """Lower priority, bounded memory. What the system does not let be limited, such as under a strict unit, is told."""
    told = []
    try:
        os.nice(_NICE)
    except OSError as error:
        told.append(f"the priority of the process that forecasts cannot be lowered ({error.strerror})")
    try:
        # Data, not address space: shared libraries and their tables are mapped and hardly used.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    except (OSError, ValueError) as error:
        told.append(f"the memory of the process that forecasts is looked at after each fit only ({error})")
    return told


def _end_with_parent() -> None:
    """A parent that is killed takes it along, in the middle of a fit too. Elsewhere than on Linux the socket tells."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PARENT_DIES, signal.SIGKILL, 0, 0, 0)
        if parent != os.getppid():
            os._exit(0)


def _rss_bytes() -> int:
    """Memory in use; where it cannot be read, the most that ever was."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_size, found.st_ino


if __name__ == "__main__":
    main()
