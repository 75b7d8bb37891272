"""Classic models, to compare with; they take no part in forecasts. The only door to statsmodels.

Adding one: a file, a line here, a test, a row in the README.
"""

from __future__ import annotations

from forecaster.classics.dummies_ar import DummiesAr
from forecaster.classics.fourier_ar import FourierAr
from forecaster.classics.holt_winters import HoltWinters
from forecaster.classics.moving_average import MovingAverage
from forecaster.classics.stl_ets import StlEts
from forecaster.model import Model

CLASSICS: dict[str, Model] = {
    "moving average": MovingAverage(),
    "Holt-Winters": HoltWinters(),
    "STL + ETS": StlEts(),
    "Fourier + AR": FourierAr(),
    "seasonal dummies + AR": DummiesAr(),
}
