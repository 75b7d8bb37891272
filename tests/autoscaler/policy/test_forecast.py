"""What a policy says of forecasts: units, bounds, events in both forms, and every mistake where it is."""

from __future__ import annotations

import pytest

from autoscaler.policy.forecast import ForecastingSettings
from autoscaler.policy.load import parse
from forecaster.events import instant_s
from forecaster.settings import ForecastSettings
from lb.yaml_document import DocumentError

SPOILED = """\
forecast:
  bin: 7m
  horizons: [15m, 5m]
  quantiles: [0.5, 1.5]
  growth: 0.5
  memory: 10
  tme: 3s
events:
  - 2026-12-01 09:00 for 3h, +40 %
  - {at: 2026-12-24 20:00 UTC, for: 3h, demand: lots}
calendars:
  - {file: a.ics}
  - {file: a.ics, demand: +20 %}
  - {file: b.ics, zone: Mars/Olympus}
"""
EXPECTED = """\
forecast.bin = '7m': 420s must be whole minutes that divide a day, such as 1m, 5m, 15m or 1h
forecast.horizons: must be ascending, and 300 comes after 900
forecast.quantiles[1] = 1.5: must be less than 1
forecast.growth = 0.5: must be greater than or equal to 1
forecast.memory = 10: must be greater than or equal to 536870912
forecast.tme: unknown key; did you mean 'time'?
events[0].at: '2026-12-01 09:00' names no time zone; write 2026-12-01 09:00 UTC or a zone such as
events[1].demand = 'lots': is not a change of demand; write +40..120 %, +40 %, -50 % or x2..3
calendars[1].file = 'a.ics': the file is listed twice, first on line 12
calendars[2].zone = 'Mars/Olympus': is not a time zone; write one such as Europe/Berlin
"""


def test_defaults_are_those_of_the_forecaster() -> None:
    assert parse("").forecast.forecaster() == ForecastSettings()


def test_everything_that_is_said_reaches_the_forecaster() -> None:
    text = "forecast: {bin: 1m, horizons: [2m, 1h], quantiles: [0.2, 0.8], growth: 2, under: 4, over: 2, memory: 1GiB}"
    settings = parse(text).forecast
    assert settings.forecaster() == ForecastSettings(
        step_s=60, horizons_s=(120.0, 3600.0), quantiles=(0.2, 0.8), growth=2.0, stale_s=180.0, under_cost=4.0,
        over_cost=2.0,
    )  # fmt: skip
    assert settings.memory_bytes == 1 << 30
    assert parse("forecast: {stale: 20m}").forecast.forecaster().stale_s == 1200.0


def test_events_are_written_in_a_line_or_by_field() -> None:
    policy = parse("""\
events:
  - 2026-12-01 09:00 Europe/Berlin for 3h, +40..120 %, launch
  - {at: 2026-12-24 20:00 UTC, for: 90m, demand: x2}
calendars:
  - {file: campaigns.ics, demand: +20 %, zone: Europe/Berlin}
""")
    launch, eve = (one.event() for one in policy.events)
    assert (launch.start_s, launch.end_s - launch.start_s) == (instant_s("2026-12-01 08:00 UTC"), 3 * 3600)
    assert (launch.low_ratio, launch.high_ratio, launch.name) == (1.4, 2.2, "launch")
    assert (eve.end_s - eve.start_s, eve.low_ratio, eve.high_ratio) == (5400, 2.0, 2.0)
    assert policy.calendars[0].usual() == (1.2, 1.2)


def test_every_mistake_is_named_where_it_is() -> None:
    with pytest.raises(DocumentError) as caught:
        parse(SPOILED)
    found = [one.text("p.yaml") for one in caught.value.problems]
    assert [one.partition(": ")[0] for one in found] == [f"p.yaml:{line}" for line in (2, 3, 4, 5, 6, 7, 9, 10, 13, 14)]
    for one, told in zip(found, EXPECTED.splitlines(), strict=True):
        assert one.partition(": ")[2].startswith(told)


def test_a_forecast_must_be_able_to_be_fresh() -> None:
    with pytest.raises(DocumentError) as caught:
        parse("forecast:\n  bin: 10m\n  stale: 15m\n")
    (found,) = caught.value.problems
    assert found.text("p").startswith("p:1: forecast: stale = 900s must be at least two bins (1200s)")


@pytest.mark.parametrize("bin_s", [60, 300, 900, 3600, 86_400])
def test_a_bin_that_the_policy_takes_the_forecaster_takes(bin_s: int) -> None:
    assert ForecastingSettings(bin_s=bin_s).forecaster().step_s == bin_s
