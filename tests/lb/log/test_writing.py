"""Log lines reach the descriptor, and a reader that stops never stops us."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lb.log import BURST, WINDOW_S, Log, LogWriter, Throttle, configure
from lb.settings import LogSettings


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def lines_of(path: Path, log: Log) -> list[str]:
    log.writer.close()
    return path.read_text().splitlines()


def configured(path: Path, **settings: object) -> Log:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    return configure(LogSettings.model_validate(settings), fd=fd, now=lambda: 0.0)


def test_a_record_becomes_a_line_with_its_fields(tmp_path: Path) -> None:
    log = configured(tmp_path / "log")
    logging.getLogger("lb.gateway").info(
        "replica %s joined", "a\nb", extra={"replica": "http://10.0.0.1", "in_flight": 3}
    )
    [line] = lines_of(tmp_path / "log", log)
    assert line.partition(" ")[2] == (
        'level=info logger=lb.gateway msg="replica a\\nb joined" replica=http://10.0.0.1 in_flight=3'
    )


def test_json_has_the_same_fields_and_the_traceback_on_one_line(tmp_path: Path) -> None:
    log = configured(tmp_path / "log", format="json")
    try:
        raise ValueError("no\nway")
    except ValueError:
        logging.getLogger("lb.x").exception("broken", extra={"replica": "r"})
    [line] = lines_of(tmp_path / "log", log)
    record = json.loads(line)
    assert record["level"] == "error"
    assert record["replica"] == "r"
    assert record["traceback"].endswith("ValueError: no\nway")
    assert record["ts"].endswith("Z")


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["lb debug", "lb info", "lb error", "other info", "other error"]),
        ("info", ["lb info", "lb error", "other error"]),
        ("error", ["lb error", "other error"]),
    ],
)
def test_levels(tmp_path: Path, level: str, heard: list[str]) -> None:
    log = configured(tmp_path / "log", format="json", level=level)
    for name in ("lb", "other"):
        logger = logging.getLogger(name)
        logger.debug("%s debug", name)
        logger.info("%s info", name)
        logger.error("%s error", name)
    assert [json.loads(line)["msg"] for line in lines_of(tmp_path / "log", log)] == heard


def test_a_second_configure_replaces_the_first(tmp_path: Path) -> None:
    first = configured(tmp_path / "first")
    second = configured(tmp_path / "second")
    logging.getLogger("lb").warning("once")
    assert lines_of(tmp_path / "first", first) == []
    assert len(lines_of(tmp_path / "second", second)) == 1


def test_a13_a_flood_of_equal_messages_is_counted_not_written(tmp_path: Path) -> None:
    now = [0.0]
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    log = configure(LogSettings(), fd=fd, now=lambda: now[0])
    for number in range(1000):
        logging.getLogger("lb.proxy").warning("bad request from %s", number)
    now[0] = WINDOW_S
    logging.getLogger("lb.proxy").warning("bad request from %s", "last")
    lines = lines_of(tmp_path / "log", log)
    assert len(lines) == BURST + 1
    assert lines[-1].endswith(f"suppressed={1000 - BURST}")
    assert log.throttle.suppressed == 1000 - BURST


def test_the_throttle_remembers_a_bounded_number_of_messages() -> None:
    throttle = Throttle(lambda: 0.0)
    for number in range(5000):
        assert throttle.admit("lb", 20, f"message {number}") == (True, 0)
    assert len(throttle._seen) <= 1024


def test_h17_a_blocked_pipe_drops_lines_and_says_so_later() -> None:
    read_fd, write_fd = os.pipe()
    writer = LogWriter(write_fd, queue_bytes=100_000)
    started = time.perf_counter()
    for _ in range(20_000):
        writer.put("x" * 99)
    assert time.perf_counter() - started < 2.0
    assert writer.dropped > 15_000
    received = bytearray()
    os.set_blocking(read_fd, False)
    deadline = time.monotonic() + 5
    while b"log lines lost=" not in received and time.monotonic() < deadline:
        try:
            received += os.read(read_fd, 1 << 20)
        except BlockingIOError:
            time.sleep(0.005)
            writer.put("again")
    assert b"log lines lost=" in received
    writer.close()
    os.close(read_fd)
    os.close(write_fd)


def test_h17_closing_does_not_wait_for_a_blocked_pipe() -> None:
    read_fd, write_fd = os.pipe()
    writer = LogWriter(write_fd)
    writer.put("x" * 200_000)
    started = time.monotonic()
    writer.close(timeout_s=0.1)
    assert time.monotonic() - started < 1.0
    writer.put("after the end")
    assert writer.dropped == 1
    os.close(read_fd)
    writer._thread.join(5)
    os.close(write_fd)


def test_g10_a_full_disk_costs_lines_and_nothing_else() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    writer = LogWriter(fd)
    writer.put("lost")
    writer.close()
    assert writer.dropped == 1
    os.close(fd)


def test_a_nonblocking_descriptor_gets_everything() -> None:
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    writer = LogWriter(write_fd)
    writer.put("y" * 300_000)
    received = b""
    while len(received) < 300_001:
        received += os.read(read_fd, 1 << 16)
    assert received == b"y" * 300_000 + b"\n"
    writer.close()
    os.close(read_fd)
    os.close(write_fd)
