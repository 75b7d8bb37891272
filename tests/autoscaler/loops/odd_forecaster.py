"""The process that forecasts, spoiled: the name of a pool says what happens when it is asked."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace

import numpy as np

from autoscaler import forecast_worker
from autoscaler.forecast_wire import Answer, Ask


class OddWork(forecast_worker.Work):
    """Does as told, and otherwise what it should."""

    def _answer(self, ask: Ask) -> Answer:
        match ask.pool:
            case "hang":
                time.sleep(3600)
            case "spin":
                while True:
                    pass
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                print("something dreadful", file=sys.stderr, flush=True)
                os._exit(3)
            case "closed":
                os.closerange(3, 100)
                time.sleep(3600)
            case "hog":
                kept = [np.ones(8 << 20)]
                while True:
                    kept.append(kept[-1] + 1.0)
            case "talk":
                print("a library that prints")
            case "raise":
                raise ZeroDivisionError("by zero")
        answer = super()._answer(ask)
        if ask.pool == "nan" and answer.forecast is not None:
            rows = tuple((float("nan"),) * len(row) for row in answer.forecast.values)
            return replace(answer, forecast=replace(answer.forecast, values=rows))
        return answer


if __name__ == "__main__":
    forecast_worker.Work = OddWork  # type: ignore[misc]
    forecast_worker.main()
