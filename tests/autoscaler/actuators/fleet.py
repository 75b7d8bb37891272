"""What an operator's command or service might do: replicas as files in a directory. `python fleet.py DIR VERB`.

It obeys and thinks little: what it is told to give up it ends, ready or not. Nothing but the standard library.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


class Fleet:
    """Replicas are `NAME.replica`; they are ready once there is a file `ready`. Kind `bad` fails."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def observe(self) -> dict[str, Any]:
        replicas: list[object] = []
        ready = (self.directory / "ready").exists()
        for path in sorted(self.directory.glob("*.replica")):
            try:
                known = json.loads(path.read_text())
            except ValueError:
                replicas.append({"id": path.stem, "phase": "who knows"})
                continue
            one = {**known, "id": path.stem, "start_id": path.stem}
            if known["kind"] == "bad":
                one |= {"phase": "failed", "detail": "no such model"}
            elif ready:
                one |= {"phase": "ready", "phase_age": 1.5, "stage_ages": {"requested": 2.5, "warm": 1.5}}
            else:
                one |= {"phase": "starting", "phase_age": 1.0}
            replicas.append(one)
        return {"replicas": replicas}

    def apply(self, action: dict[str, Any]) -> None:
        with (self.directory / "actions").open("a") as log:
            log.write(json.dumps(action) + "\n")
        match action["action"]:
            case "scale_up":
                for name in action["start_ids"]:
                    path = self.directory / f"{name}.replica"
                    if not path.exists():
                        count = len(self.lines("started"))
                        with (self.directory / "started").open("a") as log:
                            log.write(f"{name}\n")
                        known = {"kind": action["kind"], "url": f"http://127.0.0.1:{20_000 + count}/v", "models": ["m"]}
                        path.write_text(json.dumps(known))
            case "stop" | "give_up":
                name = action["replica"] or action["start_id"]
                (self.directory / f"{name}.replica").unlink(missing_ok=True)

    def lines(self, name: str) -> list[str]:
        try:
            return (self.directory / name).read_text().splitlines()
        except FileNotFoundError:
            return []


if __name__ == "__main__":
    fleet, verb = Fleet(Path(sys.argv[1])), sys.argv[2]
    told = json.load(sys.stdin)
    if verb == "observe":
        print(json.dumps(fleet.observe()))
    else:
        assert told["action"] == verb
        fleet.apply(told)
