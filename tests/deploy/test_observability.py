"""Alerts and dashboard ask only for metrics and labels that Tidegate exports, and Prometheus accepts what they ask."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from prometheus_client import CollectorRegistry

from autoscaler.fleet import Phase
from autoscaler.metrics import (
    ControlMetrics,
    ForecastMetrics,
    ForecastState,
    PeerMetrics,
    SourceMetrics,
    StoreMetrics,
)
from autoscaler.policy.forecast import ForecastingSettings
from forecaster.quantiles import Forecast
from lb.effects import Outcome
from lb.errors import Reason
from lb.gateway import Gateway
from lb.log import Log
from lb.metrics import LbMetrics, Reload
from lb.replica import ReplicaState
from lb.settings import BackendSettings, LbSettings
from lb.source import endpoint_of
from nvml.drivers.fake import FakeDriver
from nvml.errors import DriverFault
from nvml.health import NodeHistory, fold
from nvml.metrics import GpuCollector
from nvml.sample import GpuState
from nvml.settings import HealthSettings
from tests.deploy.conftest import DEPLOY
from tests.deploy.promql import metrics, unknown_labels

RULES = DEPLOY / "prometheus" / "tidegate.rules.yaml"
RULES_TEST = Path(__file__).parent / "tidegate.rules.test.yaml"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
VALUES = {
    "outcome": {*Outcome, "answered_here", "written", "failed", "dropped"},
    "reason": {*Reason},
    "state": {*ReplicaState, *GpuState, *Phase, "desired"},
    "fault": {*DriverFault},
    "cause": {"blocked", "repeated"},
    "horizon": {f"{horizon_s:g}" for horizon_s in ForecastingSettings().horizons_s},
    "quantile": {f"{level:g}" for level in ForecastingSettings().quantiles},
}
"""Values of labels that are a vocabulary of the code, or of the defaults of a policy."""
FORECAST = Forecast(
    made_at_s=0, step_s=300, horizons_s=(300.0,), quantiles=(0.5,), values=((600.0,),), model="m", reason="",
    score_ratio=0.9, coverage=(0.5,), trusted=True, trust_reason="",
)  # fmt: skip
EVERYWHERE = {"up": {"job"}}
"""What Prometheus itself makes of each target."""


def _export(registry: CollectorRegistry) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set(labels) for name, labels in EVERYWHERE.items()}
    for family in registry.collect():
        made_by = registry._names_to_collectors.get(family.name)  # of a Counter or Gauge that has no series yet
        labels = {*getattr(family, "_labelnames", ()), *getattr(made_by, "_labelnames", ())}
        labels |= {label for one in family.samples for label in one.labels}
        for suffix in SUFFIXES.get(family.type, ("",)):
            found[family.name + suffix] = labels
    return found


@pytest.fixture
async def exported() -> dict[str, set[str]]:
    """Labels of every metric of the process by its name in Prometheus."""
    gateway = Gateway(LbSettings(), asyncio.get_running_loop(), random.Random(1))
    registry = CollectorRegistry()
    lb = LbMetrics(registry, version="1", now=gateway.now)
    lb.watch_gateway(gateway)
    log = SimpleNamespace(writer=SimpleNamespace(dropped=0), throttle=SimpleNamespace(suppressed=0))
    lb.watch_log(cast("Log", log))
    lb.reloaded(Reload(ok=True, at=1.0))
    gateway.set_source("static", [endpoint_of(BackendSettings(url="http://10.0.0.1:8000"))])
    node = fold(NodeHistory(), FakeDriver(1).read(1.0), 1.0, HealthSettings(), driver_version="1")[1]
    registry.register(GpuCollector(lambda: node))
    SourceMetrics(registry, tuple, gateway.now)
    PeerMetrics(registry, tuple, gateway.now)
    ControlMetrics(registry)
    ForecastMetrics(registry, lambda: [ForecastState("p", FORECAST, 20.0, 0.1, 0)], lambda: 0)
    StoreMetrics(registry, lambda: (0, 0, 0))
    found = _export(registry)
    gateway.close()
    return found


def _alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def _panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def _filled(expression: str) -> str:
    for variable, value in (("$__rate_interval", "5m"), ("$model", ".*"), ("$pool", ".*")):
        expression = expression.replace(variable, value)
    return expression


def _expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and the expression with Grafana's variables filled in."""
    for rule in _alerts():
        yield rule["alert"], rule["expr"]
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        found = [
            (panel["title"], target["expr"]) for panel in _panels(dashboard) for target in panel.get("targets", ())
        ]
        found += [(one["name"], one["expr"]) for one in dashboard["annotations"]["list"]]
        for title, expression in found:
            yield title, _filled(expression)
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                yield (
                    variable["name"],
                    re.sub(r"label_values\((\w+), (\w+)\)", r"sum by (\2) (\1)", variable["definition"]),
                )


EXPRESSIONS = list(_expressions())


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_an_expression_asks_for_what_is_exported(where: str, expression: str, exported: dict[str, set[str]]) -> None:
    asked = metrics(expression)
    assert asked, f"{where}: {expression} names no metric"
    missing = asked - set(exported)
    assert not missing, f"{where}: nothing exports {sorted(missing)}"
    assert unknown_labels(expression, exported) == set()


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_values_of_labels_exist(where: str, expression: str) -> None:
    for label, operator, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', expression):
        if label in VALUES:
            named = set(value.split("|")) if "~" in operator else {value}
            assert named <= VALUES[label], f"{where}: {label} is never {sorted(named - VALUES[label])}"


def test_the_reader_of_expressions_sees_mistakes() -> None:
    labels = {"a_total": {"model"}, "b": {"replica"}}
    expression = 'sum by (model) (rate(a_total{modell="x"}[5m])) / on (zone) 1e3 * c and min(b) > Inf'
    assert metrics(expression) == {"a_total", "b", "c"}
    assert unknown_labels(expression.replace("* c", ""), labels) == {"a_total{modell}", "by (zone)"}


@pytest.mark.parametrize("rule", _alerts(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_it_means_and_what_to_do(rule: dict[str, Any], exported: dict[str, set[str]]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    texts = " ".join(rule["annotations"].values())
    named = set(re.findall(r"\b(?:tidegate|process)_[a-z_0-9]+\b", texts))
    assert named <= set(exported), f"the text names what nothing exports: {sorted(named - set(exported))}"


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in _alerts()]
    assert len(set(names)) == len(names)
    assert all(name.startswith("Tidegate") for name in names)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_is_whole(path: Path) -> None:
    """Every panel has a place of its own on the 24 columns, an id, a unit, a description and a data source."""
    dashboard = json.loads(path.read_text())
    panels = list(_panels(dashboard))
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"], f"{panel['title']}: what does it show?"
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["datasource"]["uid"] == "${datasource}", "the user's Prometheus has another uid"
            thresholds = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
            assert thresholds[0] is None
            assert thresholds[1:] == sorted(thresholds[1:])


def test_everything_that_is_known_of_forecasts_is_shown(exported: dict[str, set[str]]) -> None:
    shown = {name for _, expression in EXPRESSIONS for name in metrics(expression)}
    assert {name for name in exported if "forecast" in name} <= shown


def test_a_forecast_is_shown_at_the_time_that_it_was_made_for() -> None:
    """Shifted by its own horizon: what was said of now lies beside what is now."""
    shifted = [
        (horizon, offset)
        for _, expression in EXPRESSIONS
        for horizon, offset in re.findall(r'horizon="(\d+)"[^}]*\} offset (\d+)m', expression)
    ]
    assert len(shifted) >= 2, "a middle and an upper edge"
    assert all(int(horizon) == 60 * int(offset) for horizon, offset in shifted)


def test_what_a_panel_does_to_one_of_its_lines_finds_that_line() -> None:
    """Overrides go by the name in the legend; one that fits none does nothing, silently."""
    named = 0
    for path in DASHBOARDS:
        for panel in _panels(json.loads(path.read_text())):
            legends = {target["legendFormat"] for target in panel.get("targets", ())}
            for one in panel.get("fieldConfig", {}).get("overrides", ()):
                asked = {one["matcher"]["options"]}
                asked |= {each["value"] for each in one["properties"] if each["id"] == "custom.fillBelowTo"}
                assert asked <= legends, f"{panel['title']}: no line is called {sorted(asked - legends)}"
                named += 1
    assert named


def test_a_variable_that_is_used_is_defined() -> None:
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        defined = {one["name"] for one in dashboard["templating"]["list"]}
        used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(dashboard["panels"])))
        assert used == defined


def test_every_alert_that_wakes_somebody_is_tried() -> None:
    """In the cases that promtool plays, once where it fires at least."""
    cases = RULES_TEST.read_text()
    pages = [rule["alert"] for rule in _alerts() if rule["labels"]["severity"] == "page"]
    assert [name for name in pages if name not in cases and not name.startswith("TidegateFirstToken")] == []


PROMTOOL = shutil.which("promtool")
asks_promtool = pytest.mark.skipif(PROMTOOL is None, reason="asks Prometheus' own promtool, which is not installed")


def _promtool(*arguments: str) -> str:
    assert PROMTOOL is not None
    ran = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@asks_promtool
def test_prometheus_accepts_the_rules() -> None:
    assert f"SUCCESS: {len(_alerts())} rules found" in _promtool("check", "rules", str(RULES))


@asks_promtool
def test_the_alerts_fire_when_they_should(tmp_path: Path) -> None:
    text = RULES_TEST.read_text().replace("tidegate.rules.yaml", str(RULES))
    (tmp_path / "test.yaml").write_text(text)
    assert "SUCCESS" in _promtool("test", "rules", str(tmp_path / "test.yaml"))


@asks_promtool
def test_prometheus_can_evaluate_every_panel(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": text} for number, (_, text) in enumerate(EXPRESSIONS)]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in _promtool("check", "rules", str(file))
