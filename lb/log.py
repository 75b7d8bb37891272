"""Logs: one line per event on standard error, as key=value or JSON. Writing never waits for the reader.

Everybody uses `logging.getLogger(__name__)`; values given with `extra={...}` become fields of the line. A line is put
in a bounded queue and a thread writes it: with a blocked pipe or a full disk lines are dropped and counted, and the
event loop goes on. A message that repeats is let through a few times and then counted (`suppressed=N` on the next).
Values are escaped, so that no client can forge a line or drive a terminal, and cut to a length.
"""

from __future__ import annotations

import logging
import os
import re
import select
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from lb.settings import LogSettings

MAX_VALUE_CHARS = 512
"""Longest value of a field. A model name or path of a megabyte tells no more than its beginning."""
MAX_MESSAGE_CHARS = 2048
MAX_TRACEBACK_CHARS = 16_384
"""Cut from the front: the innermost frames and the error are at the end."""
QUEUE_BYTES = 4 << 20
"""Lines waiting for the writer: some 20,000, a few seconds of a busy log."""
BURST = 10
"""Equal messages let through per window."""
WINDOW_S = 10.0
MAX_MESSAGES = 1024
"""Different messages whose repetition is counted."""
OWN_PACKAGES = ("lb", "autoscaler", "forecaster", "nvml")

_BARE = re.compile(r"[A-Za-z0-9_./:@%+,;\[\]()*-]+\Z")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f"\\\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]')
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

Fields = Mapping[str, object]
Render = Callable[[Fields], str]


class LogWriter:
    """A thread that writes lines to a file descriptor. `put` never blocks."""

    def __init__(self, fd: int = 2, *, queue_bytes: int = QUEUE_BYTES) -> None:
        self._fd = fd
        self._queue_bytes = queue_bytes
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._unreported = 0
        self._closing = False
        self._changed = threading.Condition()
        self.dropped = 0
        """Lines lost since the start, because the reader stopped or writing failed."""
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            if self._closing or self._waiting_bytes + len(data) > self._queue_bytes:
                self.dropped += 1
                self._unreported += 1
                return
            self._lines.append(data)
            self._waiting_bytes += len(data)
            self._changed.notify()

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what waits, for at most `timeout_s` seconds; later lines are dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines and not self._closing:
                    self._changed.wait()
                if not self._lines:
                    return
                batch = list(self._lines)
                self._lines.clear()
                lost, self._unreported = self._unreported, 0
            if lost:
                batch.append(f"log lines lost={lost}\n".encode())
            written = self._write(b"".join(batch))
            with self._changed:
                self._waiting_bytes = sum(map(len, self._lines))
                if not written:
                    self.dropped += len(batch)

    def _write(self, data: bytes) -> bool:
        """False: the descriptor is closed or its disk is full; there is nowhere left to say so but the counter."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # a terminal that another process made non-blocking
                select.select([], [self._fd], [], 1.0)
            except OSError:
                return False
        return True


@dataclass(slots=True)
class _Repeat:
    since: float
    count: int = 0


class Throttle:
    """Counts equal messages; `admit` says whether this one is written and how many were left out before it."""

    def __init__(self, now: Callable[[], float], *, burst: int = BURST, window_s: float = WINDOW_S) -> None:
        self._now = now
        self._burst = burst
        self._window_s = window_s
        self._seen: OrderedDict[tuple[str, int, str], _Repeat] = OrderedDict()
        self.suppressed = 0
        """Messages left out since the start."""

    def admit(self, name: str, level: int, message: str) -> tuple[bool, int]:
        now = self._now()
        key = (name, level, message[:200])
        repeat = self._seen.get(key)
        if repeat is None:
            repeat = self._seen[key] = _Repeat(now)
            if len(self._seen) > MAX_MESSAGES:
                self._seen.popitem(last=False)
        left_out = 0
        if now - repeat.since >= self._window_s:
            left_out = max(0, repeat.count - self._burst)
            repeat.since, repeat.count = now, 0
        repeat.count += 1
        if repeat.count > self._burst:
            self.suppressed += 1
            return False, 0
        return True, left_out


class LineHandler(logging.Handler):
    """Turns log records into lines for a writer."""

    def __init__(self, writer: LogWriter, render: Render, throttle: Throttle) -> None:
        super().__init__()
        self._writer = writer
        self._render = render
        self._throttle = throttle

    def emit(self, record: logging.LogRecord) -> None:
        try:
            admitted, left_out = self._throttle.admit(record.name, record.levelno, str(record.msg))
            if admitted:
                self._writer.put(self._render(_fields(record, left_out)))
        except Exception:
            self.handleError(record)


@dataclass(frozen=True, slots=True)
class Log:
    """The configured log; `write` takes the fields of one line past the logging module, for the access log."""

    writer: LogWriter
    throttle: Throttle
    render: Render

    def write(self, fields: Fields) -> None:
        self.writer.put(self.render(fields))


def configure(settings: LogSettings, *, fd: int = 2, now: Callable[[], float] = time.monotonic) -> Log:
    """Send all logs of this process to `fd`. Called again (a reload), it replaces what was there.

    Libraries are heard from `warning` on, and from `info` on when the level is `debug`.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, LineHandler)]:
        root.removeHandler(handler)
    render = render_json if settings.format == "json" else render_text
    log = Log(LogWriter(fd), Throttle(now), render)
    root.addHandler(LineHandler(log.writer, render, log.throttle))
    level = _LEVELS[settings.level]
    root.setLevel(logging.INFO if level == logging.DEBUG else max(level, logging.WARNING))
    for package in OWN_PACKAGES:
        logging.getLogger(package).setLevel(level)
    logging.captureWarnings(capture=True)
    return log


def _fields(record: logging.LogRecord, left_out: int) -> dict[str, object]:
    fields: dict[str, object] = {
        "ts": timestamp(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "msg": _cut(record.getMessage(), MAX_MESSAGE_CHARS),
    }
    fields.update({name: value for name, value in vars(record).items() if name not in _STANDARD})
    if left_out:
        fields["suppressed"] = left_out
    if record.exc_info and record.exc_info[0] is not None:
        text = logging.Formatter().formatException(record.exc_info)
        fields["traceback"] = _Whole(text[-MAX_TRACEBACK_CHARS:])
    return fields


class _Whole(str):
    """A value that may be longer than others."""


def timestamp(epoch_s: float) -> str:
    """UTC with milliseconds: `2026-01-02T03:04:05.678Z`."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def render_text(fields: Fields) -> str:
    """`key=value key="two words"`; None is left out."""
    return " ".join(f"{name}={_quoted(value)}" for name, value in fields.items() if value is not None)


def render_json(fields: Fields) -> str:
    """One JSON object; None is left out, what JSON does not know is written as text."""
    plain = {name: _plain(value) for name, value in fields.items() if value is not None}
    # Escaped once more: JSON allows C1 controls and direction marks as they are, a terminal should not get them.
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", msgspec.json.encode(plain).decode())


_UNSAFE_IN_JSON = re.compile(r"[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def _plain(value: object) -> object:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6) if abs(value) < 1e15 else str(value)
    text = _text(value)
    # A lone surrogate has no UTF-8 form.
    return text.encode("utf-8", "backslashreplace").decode()


def _quoted(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = _text(value)
    if _BARE.match(text):
        return text
    return '"' + _UNSAFE.sub(_escaped, text) + '"'


def _text(value: object) -> str:
    text = str(value)
    return text if isinstance(value, _Whole) or len(text) <= MAX_VALUE_CHARS else _cut(text, MAX_VALUE_CHARS)


def _cut(text: str, limit: int) -> _Whole:
    return _Whole(text if len(text) <= limit else f"{text[:limit]}...({len(text)} characters)")


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
