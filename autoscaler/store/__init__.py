"""What must outlive the process: demand by the minute, what the controller has learned, and its decisions.

`rows` are the values, `file` one SQLite file (synchronous; also opened by `tidegate explain`), `store` the thread that
the daemon talks to.
"""

from autoscaler.store.file import StoreFile
from autoscaler.store.rows import BIN_S, STORE_FILE, Bin, StoredDecision, StoreError
from autoscaler.store.store import Store

__all__ = ["BIN_S", "STORE_FILE", "Bin", "Store", "StoreError", "StoreFile", "StoredDecision"]
