"""A replica in a few lines: `python replica.py PORT [MODE]`.

It answers 503 on /health until the file `ready` lies beside it (or MODE is `ready`), then 200. MODE `fail` ends with
status 3 after saying why, `stubborn` ignores SIGTERM, `hang` accepts connections and never answers, `worker` leaves a
child behind when it ends.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, MODE = int(sys.argv[1]), (sys.argv[2:] or ["ready"])[0]


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if MODE == "hang":
            time.sleep(60)
        self.send_response(200 if MODE != "loading" or Path("ready").exists() else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


if MODE == "fail":
    sys.exit("no such model: it is nowhere")  # status 1, text on standard error
if MODE == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if MODE == "worker":
    subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; sleep 60 & wait; wait"])
print(f"serving on {PORT}", flush=True)
ThreadingHTTPServer(("127.0.0.1", PORT), Health).serve_forever()
