"""Reads what runtimes answered from tests/data/runtimes."""

from __future__ import annotations

from pathlib import Path

from lb.runtime import Answer

DATA = Path(__file__).parents[2] / "data" / "runtimes"


def recorded(name: str, *, status: int = 200, server: str = "") -> Answer:
    """`engine/file`; `status` and `server` are for files that hold a body alone."""
    raw = (DATA / name).read_bytes()
    if not raw.startswith(b"HTTP/1.1 "):
        return Answer(status, raw, server)
    head, _, body = raw.replace(b"\r\n", b"\n").partition(b"\n\n")
    lines = head.decode().splitlines()
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
    return Answer(int(lines[0].split()[1]), body, headers.get("server", ""))
