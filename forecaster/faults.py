"""Parts of a forecast that fail are left out, with a note, until they are fitted again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from forecaster.series import Floats

_FAR = 7.0
"""Apart on the logarithmic scale: a thousandfold. No demand does that within a horizon, only a model that explodes."""

_Made = TypeVar("_Made")


class Faults:
    """What failed, by part. Memory that runs out is not caught: the whole forecaster has to go then."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def __contains__(self, part: str) -> bool:
        return part in self._found

    @property
    def found(self) -> tuple[str, ...]:
        """One sentence per part."""
        return tuple(self._found.values())

    def fitted(self, part: str, fit: Callable[[], _Made]) -> _Made | None:
        """A new fit, which ends the part's fault; None if it fails."""
        try:
            made = fit()
        except MemoryError:
            raise
        except Exception as error:
            self._found[part] = f"{part} could not be fitted ({type(error).__name__})"
            return None
        self._found.pop(part, None)
        return made

    def predicted(self, part: str, predict: Callable[[], Floats], otherwise: Floats) -> Floats:
        """Points of z [origin]; `otherwise` where the part fails or says what cannot be."""
        try:
            said = predict()
        except MemoryError:
            raise
        except Exception as error:
            self._found[part] = f"{part} failed ({type(error).__name__})"
            return otherwise
        sound = np.abs(said - otherwise) <= _FAR
        if sound.all():
            return said
        self._found[part] = f"{part} gave no sensible number"
        return np.where(sound, said, otherwise)
