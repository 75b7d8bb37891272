"""What can be wrong with numbers that come in."""

from __future__ import annotations


class ForecastError(Exception):
    """Anything this package refuses; the text says what is wrong and what would be right."""


class SeriesError(ForecastError):
    """A series, or the file it was read from, cannot be used."""


class EventError(ForecastError):
    """A known event, or the calendar it stands in, cannot be used."""
