"""`tidegate simulate` and `tidegate replay` as a person or a script meets them."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from typer.testing import CliRunner

from autoscaler.cli import build
from autoscaler.commands.replay import demand_of
from autoscaler.store import Bin, StoreFile

TRACE = Path(__file__).parents[2] / "data" / "traces" / "servegen_r1_sample.csv.gz"


def tidegate(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "autoscaler", *arguments], capture_output=True, text=True, env=environment, timeout=110
    )


@pytest.fixture
def demand(tmp_path: Path) -> Path:
    """Half a day, a value a minute, with a wave."""
    rows = [f"{60 * minute},{3.0 + 2.0 * math.sin(minute / 60.0):.3f}" for minute in range(720)]
    path = tmp_path / "demand.csv"
    path.write_text("\n".join(["timestamp,value", *rows]) + "\n")
    return path


def test_simulate_writes_all_that_was_asked_for(demand: Path, tmp_path: Path) -> None:
    out = {name: tmp_path / name for name in ("out.json", "out.png", "out.csv")}
    done = tidegate(
        "simulate", "--demand", str(demand), "--lengths", str(TRACE), "--days", "0.1",
        "--policies", "tidegate,oracle-0", "--no-strategies",
        "--json", str(out["out.json"]), "--plot", str(out["out.png"]), "--dump-schedule", str(out["out.csv"]),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tidegate" in done.stdout
    assert "GPU-hours within 2% and misses within 0.3 points" in done.stdout
    assert "always maximum" not in done.stdout
    record = json.loads(out["out.json"].read_text())
    assert [row["policy"] for row in record["rows"]] == ["tidegate", "oracle-0"]
    assert record["rows"][0]["killed"] == 0
    assert out["out.png"].read_bytes().startswith(b"\x89PNG")
    with out["out.csv"].open() as file:
        schedule = list(csv.DictReader(file))
    assert float(schedule[0]["time_s"]) == 0.0
    assert all(int(row["desired_replicas"]) >= 1 for row in schedule)


def test_strategies_are_told_by_cost_wait_and_risk(demand: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = tidegate(
        "simulate", "--demand", str(demand), "--lengths", str(TRACE), "--days", "0.1", "--policies", "none",
        "--peak", "5", "--disturbed", "--json", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = {line.split("│")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("│")}
    assert list(lines) == ["always maximum", "reactive", "predictive", "minimum + aggressive", "hybrid"]
    assert all(word in done.stdout for word in ("cost", "mean wait", "misses", "killed", "disturbed readings"))
    runs = json.loads(out.read_text())["runs"]
    assert runs["hybrid"][0]["gpu_hours"] < runs["always maximum"][0]["gpu_hours"]
    assert runs["predictive"][0]["misses"] > runs["always maximum"][0]["misses"]
    assert all(score["killed"] == 0 for scores in runs.values() for score in scores)


def test_two_policies_are_compared(demand: Path, tmp_path: Path) -> None:
    for name, hold in (("old", "300s"), ("new", "60s")):
        text = f"scaling:\n  pools:\n    - name: chat\n      down:\n        hold: {hold}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    done = tidegate(
        "simulate", "--demand", str(demand), "--lengths", str(TRACE), "--days", "0.05", "--policies", "tidegate",
        "--compare", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "new against old: GPU-hours" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--demand FILE"),
        (("--demand", "nowhere.csv", "--lengths", str(TRACE)), "nowhere.csv"),
        (("--trace", str(TRACE), "--scenario", "mars"), "new-node"),
        (("--trace", str(TRACE), "--start-up", "240,100"), "--start-up"),
        (("--trace", str(TRACE), "--objective-misses", "none"), "1%"),
        (("--trace", str(TRACE), "--policies", "hpa,vpa"), "--policies"),
        (("--trace", str(TRACE), "--engine", "warp"), "fast and exact"),
        (("--trace", str(TRACE), "--lengths", str(TRACE)), "--lengths goes with --demand"),
        (("--trace", str(TRACE), "--plot", "picture.txt"), ".png"),
        (("--trace", str(TRACE), "--json", "/no/such/folder/out.json"), "a folder that exists"),
        (("--trace", str(TRACE), "--start-up", "1,inf"), "--start-up"),
        (("--trace", str(TRACE), "--policies", "none", "--no-strategies"), "nothing to play"),
        (("--trace", str(TRACE), "--days", "0.02", "--policies", "hpa"), "half an hour"),
        (("--trace", __file__), "arrival_seconds"),
    ],
)
def test_mistakes_are_named(arguments: tuple[str, ...], says: str) -> None:
    done = CliRunner().invoke(build(), ["simulate", *arguments])
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert done.stderr.strip().count("\n") == 0, "one line"


class _Prometheus(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        start, end = int(asked["start"][0]), int(asked["end"][0])
        values = [[at, "NaN" if at % 7200 == 0 else "2.5"] for at in range(start, end + 1, 60)]
        result = [] if asked["query"][0] == "nothing" else [{"metric": {}, "values": values}]
        body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        """Quiet."""


@pytest.fixture
def prometheus() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Prometheus)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_replay_plays_what_prometheus_remembers(prometheus: str) -> None:
    done = tidegate(
        "replay", "--prometheus", prometheus, "--query", "requests", "--lengths", str(TRACE), "--history", "0.2",
        "--days", "0.05", "--policies", "tidegate",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tidegate" in done.stdout


def test_replay_says_what_is_wrong(prometheus: str) -> None:
    for url, query, says in ((prometheus, "nothing", "no usable value"), ("http://127.0.0.1:1", "x", "--prometheus")):
        done = tidegate("replay", "--prometheus", url, "--query", query, "--lengths", str(TRACE))
        assert done.returncode == 2
        assert says in done.stderr


def test_replay_reads_what_the_store_remembers(tmp_path: Path) -> None:
    file = StoreFile.open(tmp_path / "tidegate.db", wall=0.0)
    begin = 1_700_000_000 // 60 * 60
    # An hour and a half, of which some minutes are lost.
    file.put_bins(
        Bin("chat", begin + 60 * minute, 150.0, 100_000.0, 90_000.0) for minute in range(90) if not 40 <= minute < 45
    )
    file.close()
    series = demand_of(tmp_path, "chat", None, None, 1.0)
    assert len(series) == 90
    assert np.isnan(series.values[40:45]).all()
    assert series.values[[0, 39, 45, 89]] == pytest.approx(2.5), "requests per second"
    assert len(demand_of(tmp_path / "tidegate.db", "chat", None, None, 1.0 / 24.0)) == 60, "the last hour"
    base = ["replay", "--lengths", str(TRACE)]
    for arguments, says in (
        (["--store", str(tmp_path), "--model", "code"], "models with demand: chat"),
        (["--store", str(tmp_path)], "--store needs --model"),
        ([], "--store PATH"),
        (["--prometheus", "http://127.0.0.1:1"], "--query"),
    ):
        done = CliRunner().invoke(build(), [*base, *arguments])
        assert done.exit_code == 2
        assert says in done.stderr
