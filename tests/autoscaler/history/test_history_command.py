"""`tidegate history`: into the store and out of it again."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from autoscaler.cli import build
from autoscaler.errors import EXIT_BAD_INPUT, EXIT_FAILURE, StartError
from autoscaler.series_file import load_series
from autoscaler.store import Bin, StoreFile

MODEL = "llama-3-70b"
NOW = int(time.time())
HOUR_AGO = NOW // 3600 * 3600 - 3600
"""A full hour that has ended."""


def tidegate(*arguments: str) -> Result:
    return CliRunner().invoke(build(), ["history", *arguments])


def done(*arguments: str) -> str:
    result = tidegate(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str) -> tuple[str, int]:
    """What is said, and the exit code."""
    result = tidegate(*arguments)
    assert result.exit_code != 0
    if isinstance(result.exception, StartError):
        return str(result.exception), result.exception.exit_code
    return " ".join(result.stderr.split()), result.exit_code


def bins(store: Path) -> list[Bin]:
    file = StoreFile.open_for_reading(store / "tidegate.db")
    found = file.bins(MODEL, 0.0)
    file.close()
    return found


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
def demand(tmp_path: Path) -> Path:
    """Twelve bins of five minutes, of which the third is lost."""
    rows = [f"{HOUR_AGO + 300 * index},{'' if index == 2 else 50 * (index + 1)}" for index in range(12)]
    path = tmp_path / "requests.csv"
    path.write_text("\n".join(["timestamp,value", *rows]))
    return path


def common(store: Path) -> tuple[str, ...]:
    return ("--store", str(store), "--model", MODEL)


def test_a_file_becomes_minutes_and_its_gap_stays_one(store: Path, demand: Path) -> None:
    said = done("import", *common(store), "--requests", str(demand), "--tokens-per-request", "900,250")
    assert f"{MODEL}: 55 minutes stored" in said
    assert "5 minutes between them are unknown and stay gaps" in said
    found = bins(store)
    assert [one.start_s for one in found] == [HOUR_AGO + 60 * i for i in range(60) if i // 5 != 2]
    assert found[0] == Bin(MODEL, HOUR_AGO, 10.0, 9000.0, 2500.0)


def test_each_quantity_may_have_a_file_and_a_minute_needs_all_three(store: Path, demand: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv.gz"
    with gzip.open(tokens, "wt") as file:
        file.writelines(f"{HOUR_AGO + 60 * index},{100 * index}\n" for index in range(20))
    done(
        "import",
        *common(store),
        "--requests",
        str(demand),
        "--prompt-tokens",
        str(tokens),
        "--output-tokens",
        str(tokens),
    )
    found = bins(store)
    assert [one.start_s for one in found] == [HOUR_AGO + 60 * i for i in range(20) if i // 5 != 2]
    assert [one.prompt_tokens for one in found[:3]] == [0.0, 100.0, 200.0]


def test_values_may_be_rates(store: Path, demand: Path) -> None:
    done("import", *common(store), "--requests", str(demand), "--tokens-per-request", "1,1", "--per-second")
    assert bins(store)[0].requests == pytest.approx(50 * 60)


def test_what_the_daemon_saw_itself_stays_unless_told_otherwise(store: Path, demand: Path) -> None:
    file = StoreFile.open(store / "tidegate.db", wall=NOW)
    file.put_bins([Bin(MODEL, HOUR_AGO + 60, 7.0, 8.0, 9.0)])
    file.close()
    arguments = ("import", *common(store), "--requests", str(demand), "--tokens-per-request", "1,1")
    assert "1 were known already and stayed" in done(*arguments)
    assert [one.requests for one in bins(store)[:2]] == [10.0, 7.0]
    done(*arguments, "--replace")
    assert bins(store)[1].requests == 10.0


def test_minutes_to_come_are_not_history(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "future.csv"
    now = int(time.time())  # not that of the import of this file: minutes may have passed since
    path.write_text("".join(f"{now // 60 * 60 + 60 * index},1\n" for index in range(-3, 60)))
    done("import", *common(store), "--requests", str(path), "--tokens-per-request", "1,1")
    assert 3 <= len(bins(store)) <= 5
    path.write_text(f"{now + 86_400},1\n{now + 86_460},1\n")
    said = done("import", *common(store), "--requests", str(path), "--tokens-per-request", "1,1")
    assert "nothing was stored" in said


def test_old_minutes_are_stored_and_their_end_is_foretold(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.csv"
    path.write_text("2024-01-01T00:00:00,1\n2024-01-01T00:01:00,2\n")
    assert "goes when the daemon runs" in done(
        "import", *common(store), "--requests", str(path), "--tokens-per-request", "1,1"
    )


def test_what_is_exported_can_be_read_and_imported_again(store: Path, demand: Path, tmp_path: Path) -> None:
    done("import", *common(store), "--requests", str(demand), "--tokens-per-request", "900,250")
    out = tmp_path / "out.csv.gz"
    done("export", *common(store), "--quantity", "output_tokens", "--bin", "5m", "--out", str(out))
    series = load_series(out)
    assert (series.start_s, series.step_s) == (HOUR_AGO, 300)
    wanted = [np.nan if index == 2 else 50.0 * 250 * (index + 1) for index in range(12)]
    np.testing.assert_allclose(series.values, wanted)
    assert not list(tmp_path.glob("*.part"))
    lines = done("export", *common(store)).splitlines()
    assert lines[0] == "timestamp,value"
    assert len(lines) == 61
    assert lines[11].endswith("Z,")


def test_what_is_known_is_shown(store: Path, demand: Path) -> None:
    done("import", *common(store), "--requests", str(demand), "--tokens-per-request", "900,250")
    shown = done("show", "--store", str(store))
    assert MODEL in shown
    assert "91.7%" in shown
    (record,) = json.loads(done("show", "--store", str(store / "tidegate.db"), "--json"))
    assert (record["model"], record["minutes"]) == (MODEL, 55)
    assert record["peak_requests_per_minute"] == pytest.approx(120.0)
    assert record["prompt_tokens_per_request"] == pytest.approx(900.0)


def test_a_store_without_demand_says_how_to_get_some(store: Path) -> None:
    StoreFile.open(store / "tidegate.db", wall=NOW).close()
    assert "tidegate history import" in done("show", "--store", str(store))
    assert json.loads(done("show", "--store", str(store), "--json")) == []
    said, code = refused("export", *common(store))
    assert (said, code) == (f"no demand of {MODEL!r} is known; models with demand: none", EXIT_FAILURE)


@pytest.mark.parametrize(
    ("requests", "more", "says"),
    [
        ("good.csv", (), "give --prompt-tokens and --output-tokens, or --tokens-per-request"),
        ("good.csv", ("--prompt-tokens", "good.csv"), "give --output-tokens, or"),
        ("good.csv", ("--tokens-per-request", "x"), "'x': write two means, such as 900,250"),
        ("good.csv", ("--tokens-per-request", "1,-1"), "write two means"),
        ("bad.csv", ("--tokens-per-request", "1,1"), "bad.csv: line 3: value 'minus' is not a number"),
        ("none.csv", ("--tokens-per-request", "1,1"), "none.csv: No such file"),
        ("good.csv", ("--tokens-per-request", "1,1", "--prometheus", "tcp://x"), "write http://host:port"),
        ("cut.csv.gz", ("--tokens-per-request", "1,1"), "cut.csv.gz: "),
        ("blob.csv", ("--tokens-per-request", "1,1"), "blob.csv: "),
    ],
)
def test_mistakes_of_an_import_are_named(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: str, more: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.csv").write_text("0,1\n60,2\n")
    Path("bad.csv").write_text("timestamp,value\n0,1\n60,minus\n")
    Path("cut.csv.gz").write_bytes(gzip.compress(b"0,1\n60,2\n" * 1000)[:-20])
    Path("blob.csv").write_bytes(b"\xff\xfe\x00\x80" * 100)
    said, code = refused("import", *common(store), "--requests", requests, *more)
    assert says in said
    assert code == EXIT_BAD_INPUT
    assert not list(store.iterdir())


def test_a_place_that_is_no_store_is_left_as_it_is(tmp_path: Path, demand: Path) -> None:
    before = demand.read_bytes()
    arguments = ("--model", "m", "--requests", str(demand), "--tokens-per-request", "1,1")
    said, code = refused("import", "--store", str(demand), *arguments)
    assert str(demand) in said
    assert code == EXIT_FAILURE
    assert demand.read_bytes() == before
    said, code = refused("import", "--store", str(tmp_path / "lost"), *arguments)
    assert "lost is not there" in said
    assert code == EXIT_BAD_INPUT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["requests.csv"]


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--quantity", "joules", "requests, prompt_tokens, output_tokens"),
        ("--bin", "soon", "5m"),
        ("--bin", "90s", "5m"),
    ],
)
def test_mistakes_of_an_export_are_named(store: Path, demand: Path, option: str, value: str, says: str) -> None:
    done("import", *common(store), "--requests", str(demand), "--tokens-per-request", "1,1")
    said, code = refused("export", *common(store), option, value)
    assert says in said
    assert code == EXIT_BAD_INPUT


def test_the_exit_code_reaches_the_shell(store: Path) -> None:
    command = [sys.executable, "-m", "autoscaler", "history", "show", "--store", str(store / "none.db")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (EXIT_FAILURE, "")
    assert ended.stderr.startswith("tidegate: there is no store")


class _Prometheus(BaseHTTPRequestHandler):
    """Knows two queries; the last ten minutes of each hour are missing."""

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        start, end, query = int(asked["start"][0]), int(asked["end"][0]), asked["query"][0]
        body: dict[str, object] = {"status": "error", "errorType": "bad_data", "error": f"parse error: {query}"}
        if query in ("requests", "tokens"):
            worth = "2" if query == "requests" else "300"
            values = [[at, worth] for at in range(start, end + 1, 60) if at % 3600 < 3000]
            body = {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": values}]}}
        text = json.dumps(body).encode()
        self.send_response(200 if body["status"] == "success" else 400)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        """Quiet."""


@pytest.fixture
def prometheus() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Prometheus)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_prometheus_remembers_becomes_minutes(store: Path, prometheus: str) -> None:
    """Eight days are two pieces."""
    said = done(
        "import", *common(store), "--prometheus", prometheus, "--days", "8", "--requests", "requests",
        "--prompt-tokens", "tokens", "--tokens-per-request", "1,10",
    )  # fmt: skip
    found = bins(store)
    assert 8 * 24 * 50 - 60 <= len(found) <= 8 * 24 * 50
    assert "are unknown and stay gaps" in said
    assert {(one.requests, one.prompt_tokens, one.output_tokens) for one in found} == {(120.0, 18_000.0, 1200.0)}
    # A rate at 10:50 is of the minute before, which begins at 10:49.
    assert {one.start_s % 3600 for one in found} == {(at - 60) % 3600 for at in range(0, 3000, 60)}


def test_what_prometheus_says_of_a_query_is_passed_on(store: Path, prometheus: str) -> None:
    said, code = refused(
        "import", *common(store), "--prometheus", prometheus, "--requests", "sum(", "--tokens-per-request", "1,1"
    )
    assert "400: parse error: sum(" in said
    assert code == EXIT_BAD_INPUT
