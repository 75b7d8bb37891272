"""`tidegate gpus` as a person or a script meets it, in a process of its own with the library found by the dynamic
linker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoscaler.commands.gpus import EXIT_NO_ANSWER
from nvml.sample import GpuState
from nvml.wire import decode

GIB = 1 << 30
PROGRAM = """
import typer
from autoscaler.commands import gpus
app = typer.Typer()
app.callback()(lambda: None)
gpus.register(app)
app()
"""


def command(script: Path, library: Path | None, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "COLUMNS": "200", "NVML_STUB_SCRIPT": str(script)}
    if library is not None:
        environment["LD_LIBRARY_PATH"] = str(library.parent)
    return [sys.executable, "-c", PROGRAM, "gpus", *arguments], environment


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script"
    path.write_text(f"gpus 2\nproc 0 {os.getpid()} {4 * GIB}\n")
    return path


def run(script: Path, library: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    words, environment = command(script, library, *arguments)
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_table_names_owners_and_reasons(script, libraries):
    with script.open("a") as file:
        file.write(
            "xid 1 79\non nvmlDeviceGetCurrentClocksEventReasons gpu=0 v0=0x4\n"
            "on nvmlDeviceGetClockInfo gpu=0 v0=1500\n"
        )
    done = run(script, libraries["current"])
    assert done.returncode == 0, done.stderr
    assert "2 GPU(s), driver 570.86.15" in done.stdout
    assert "sw_power_cap" in done.stdout
    assert "1500 of 1980" in done.stdout
    assert f"pid {os.getpid()}: 4.0 GiB" in done.stdout
    assert "GPU 1 is drain: XID 79: GPU has fallen off the bus" in done.stdout
    assert done.stderr == ""


def test_json_is_what_the_wire_reads(script, libraries):
    done = run(script, libraries["current"], "--json")
    assert done.returncode == 0, done.stderr
    node = decode(done.stdout.encode(), 0.0)
    assert [gpu.state for gpu in node.gpus] == [GpuState.OK, GpuState.OK]
    assert len(done.stdout.strip().splitlines()) == 1


def test_no_driver_is_a_sentence_and_success(script, tmp_path):
    done = run(script, None, "--library", str(tmp_path / "libnvidia-ml.so.1"))
    assert done.returncode == 0
    assert "No NVIDIA driver on this machine" in done.stdout
    assert "Traceback" not in done.stderr
    done = run(script, None, "--json", "--library", str(tmp_path / "libnvidia-ml.so.1"))
    assert json.loads(done.stdout)["fault"] == "library_missing"


def test_a_driver_that_refuses_is_an_error_with_advice(script, libraries):
    script.write_text("gpus 1\non nvmlInitWithFlags ret=18\n")
    done = run(script, libraries["current"])
    assert done.returncode == EXIT_NO_ANSWER
    assert "reload the module or reboot" in done.stdout


def test_a_driver_that_hangs_is_reported_and_not_waited_for(script, libraries):
    script.write_text("gpus 1\non nvmlDeviceGetMemoryInfo_v2 hang_ms=60000\n")
    began = time.monotonic()
    done = run(script, libraries["current"])
    assert done.returncode == EXIT_NO_ANSWER
    assert "nvmlDeviceGetMemoryInfo on GPU 0 has not come back" in " ".join(done.stdout.split())
    assert time.monotonic() - began < 30


def heed_interrupts() -> None:
    """A shell makes what it starts in the background ignore SIGINT, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_watch_goes_on_until_interrupted(script, libraries):
    words, environment = command(script, libraries["current"], "--watch", "--json", "--interval", "0.1")
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_interrupts,
    )  # fmt: skip
    assert process.stdout is not None
    ages = [json.loads(process.stdout.readline())["age_s"] for _ in range(3)]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert all(age < 5 for age in ages)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
