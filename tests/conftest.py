"""The tests run the sources, also where a build lies about; `TIDEGATE_COMPILED=1` has them run the build."""

from __future__ import annotations

import os
import sys

from autoscaler.compiled import SWITCH, activate

if os.environ.get(SWITCH) != "1":
    os.environ[SWITCH] = "0"  # what the tests start inherits it
if (_in_vain := activate(os.environ, sys.path)) is not None:
    raise RuntimeError(_in_vain)
