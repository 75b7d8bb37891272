"""`tidegate backtest` and `tidegate forecast` as a person or a script meets them."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from autoscaler.cli import build
from autoscaler.errors import StartError

START_S = 1_700_006_400
STEP_S = 3_600
DAYS = 6
HOURLY = ("--horizons", "1h,2h", "--quantiles", "0.5,0.9", "--stride", "6h")


@dataclass(frozen=True, slots=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def tidegate(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs a command in this process, as loading what it needs takes seconds each time."""

    def call(*arguments: str) -> Done:
        code, said = 0, ""
        try:
            build()(arguments, prog_name="tidegate")
        except SystemExit as end:
            code = int(end.code or 0)
        except StartError as error:
            code, said = error.exit_code, str(error)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err + said)

    return call


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six days of hours with a course of the day, packed."""
    hours = np.arange(DAYS * 24)
    values = (100 + 50 * np.sin(2 * np.pi * hours / 24)) * np.random.default_rng(5).lognormal(0, 0.1, len(hours))
    path = tmp_path_factory.mktemp("series") / "requests.csv.gz"
    rows = [f"{START_S + STEP_S * hour},{value:.3f}\n" for hour, value in zip(hours.tolist(), values, strict=True)]
    rows[40] = f"{START_S + STEP_S * 40},\n"
    with gzip.open(path, "wt") as file:
        file.writelines(["timestamp,value\n", *rows])
    return path


def test_backtest_prints_the_table_and_writes_what_was_asked_for(
    tidegate: Callable[..., Done], series: Path, tmp_path: Path
) -> None:
    scores, dump, plot = tmp_path / "scores.json", tmp_path / "told.csv.gz", tmp_path / "plot.png"
    done = tidegate(
        "backtest", "--series", str(series), *HOURLY, "--classics",
        "--json", str(scores), "--dump", str(dump), "--plot", str(plot),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("system", "seasonal naive day", "last value", "Holt-Winters damped", "STL + ETS", "Fourier + AR"):
        assert name in done.stdout
    facts = json.loads(scores.read_text())
    assert facts["bin_s"] == STEP_S
    assert facts["models"][0]["name"] == "system"
    by_name = {model["name"]: model for model in facts["models"]}
    assert by_name["seasonal naive day"]["ratio"] == pytest.approx(1.0)
    line = next(line for line in done.stdout.splitlines() if " system " in line)
    assert f"{by_name['system']['ratio']:.3f}" in line
    assert by_name["system"]["coverage"][0] < by_name["system"]["coverage"][1] <= 1.0
    assert facts["cpu_s"]["system"] > 0.0
    with gzip.open(dump, "rt") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == facts["origins"] * 2 * 2
    assert list(rows[0]) == ["origin", "target", "quantile", "value"]
    assert int(rows[0]["origin"]) == facts["first_origin_s"] == START_S + (DAYS * 24 - 60 + 1) * STEP_S
    assert all(float(row["value"]) >= 0.0 for row in rows)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_backtest_asks_by_default_for_four_horizons_and_quantiles(
    tidegate: Callable[..., Done], series: Path, tmp_path: Path
) -> None:
    dump = tmp_path / "told.csv"
    done = tidegate("backtest", "--series", str(series), "--dump", str(dump))
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(dump.open()))
    assert {row["quantile"] for row in rows} == {"0.5", "0.9", "0.95", "0.99"}
    # All four horizons round up to the same bin of an hour, which starts where the origin is.
    assert {int(row["target"]) - int(row["origin"]) for row in rows} == {0}
    assert len({row["origin"] for row in rows}) == 60 - 1


def test_forecast_tells_what_to_expect(tidegate: Callable[..., Done], series: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    arguments = ("--series", str(series), "--horizons", "1h,2h", "--quantiles", "0.5,0.9", "--json")
    done = tidegate("forecast", *arguments, "--plot", str(plot))
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["made_at_s"] == START_S + DAYS * 86_400
    assert len(made["values"]) == 2
    assert all(0.0 < row[0] <= row[1] < 1_000.0 for row in made["values"])
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_known_event_multiplies_the_forecast(tidegate: Callable[..., Done], series: Path, tmp_path: Path) -> None:
    arguments = ("--series", str(series), "--horizons", "1h", "--json")
    calm = json.loads(tidegate("forecast", *arguments).stdout)
    line = tidegate("forecast", *arguments, "--events", "2023-11-21 00:00 UTC for 3h, +100 %")
    assert json.loads(line.stdout)["values"][0] == pytest.approx([2 * value for value in calm["values"][0]])
    calendar = tmp_path / "launches.ics"
    lines = (
        "BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//t//t//", "BEGIN:VEVENT", "UID:1", "DTSTAMP:20231101T000000Z",
        "DTSTART:20231121T000000Z", "DTEND:20231121T030000Z", "SUMMARY:launch", "DESCRIPTION:demand: +50 %",
        "END:VEVENT", "END:VCALENDAR",
    )  # fmt: skip
    calendar.write_text("\r\n".join(lines) + "\r\n")
    drawn = tidegate("forecast", *arguments, "--events", str(calendar))
    assert json.loads(drawn.stdout)["values"][0] == pytest.approx([1.5 * value for value in calm["values"][0]])


@pytest.mark.parametrize("command", ["backtest", "forecast"])
def test_a_malformed_file_gets_line_numbers(command: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("timestamp,value\n1700000000,1\n1700000060,many\n")
    done = subprocess.run(
        [sys.executable, "-m", "autoscaler", command, "--series", str(path)], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 2
    assert f"{path}: line 3" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("backtest", "--horizons", "10m,5m"), "--horizons"),
        (("backtest", "--quantiles", "0.9,1.5"), "--quantiles"),
        (("backtest", "--stride", "soon"), "--stride"),
        (("backtest", "--bin", "90m"), "take a multiple"),
        (("backtest", "--dump", "/nowhere/told.csv"), "/nowhere/told.csv"),
        (("forecast", "--events", "some day"), "is not an event"),
        (("forecast", "--events", "absent.ics"), "no such file"),
        (("forecast", "--bin", "7h"), "divisor of a day"),
    ],
)
def test_wrong_input_is_told_and_ends_with_2(
    tidegate: Callable[..., Done], arguments: tuple[str, ...], message: str, series: Path
) -> None:
    done = tidegate(*arguments, "--series", str(series))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
