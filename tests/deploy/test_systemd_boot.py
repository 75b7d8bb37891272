"""The units under a systemd that really runs, as process 1 of its own namespaces, with the whole sandbox in force.

Collected with TIDEGATE_SYSTEMD=1 only: it takes root, a systemd to start, and a Python of the distribution that the
virtual environment was made with.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.conftest import DEPLOY

POLICY = """
lb:
  listen: 127.0.0.1:8080
  backends: [{url: "http://127.0.0.1:18999"}]
  admin: {listen: "0.0.0.0:9400", token: "file:admin-token"}
"""
NAMESPACES = ("--mount", "--pid", "--fork", "--uts", "--ipc", "--net", "--cgroup")
BEGIN = """
say() { echo "$@"; }
code() { curl -s -m 5 -o /dev/null -w '%{http_code}' "$1"; }
ready() { for try in $(seq 100); do [ "$(code http://127.0.0.1:9400/readyz)" = 200 ] && return; sleep 0.2; done; }
of() { systemctl show tidegate.service --property "$1" --value; }
ready
"""
Boot = Callable[[str, str], dict[str, str]]


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    """Boot with these units, run a script that says `key value` lines, power off, and return them."""

    def run(wants: str, script: str) -> dict[str, str]:
        (tmp_path / "policy.yaml").write_text(POLICY)
        (tmp_path / "probe.sh").write_text(f"{BEGIN}{script}\nsystemctl poweroff --force --force 2> /dev/null\n")
        given = {
            "REPO": str(DEPLOY.parent), "SITE": sysconfig.get_path("platlib"), "OUT": str(tmp_path), "WANTS": wants,
        }  # fmt: skip
        command = ["unshare", *NAMESPACES, "bash", str(Path(__file__).with_name("boot.sh"))]
        ran = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, timeout=110, check=False)
        said = tmp_path / "said"
        assert said.is_file(), ran.stdout + ran.stderr
        return dict(line.partition(" ")[::2] for line in said.read_text().splitlines())

    return run


def test_it_runs_in_its_sandbox_is_reloaded_watched_and_not_started_in_vain(boot: Boot) -> None:
    said = boot(
        "tidegate.service",
        """
        pid=$(of MainPID)
        say user $(of User)
        say status $(of StatusText)
        say capabilities $(awk '/^CapBnd/ {print $2}' /proc/$pid/status)
        say seccomp $(awk '/^Seccomp:/ {print $2}' /proc/$pid/status)
        say data $(code http://127.0.0.1:8080/v1/models)
        say state $(stat -c '%U %a' /var/lib/tidegate)
        sed -i s/18999/18998/ /etc/tidegate/policy.yaml
        systemctl reload tidegate && sleep 1
        say reloaded $(of StatusText)
        kill -STOP $pid && sleep 34
        ready
        say restarts $(of NRestarts)
        say again $(code http://127.0.0.1:9400/readyz)
        echo 'lb: {nonsense: 1}' > /etc/tidegate/policy.yaml
        systemctl restart tidegate 2> /dev/null
        sleep 3
        say refused $(of ActiveState) $(of ExecMainStatus) $(of NRestarts)
        """,
    )
    assert said == {
        "user": "tidegate",
        "status": "serving on 127.0.0.1:8080",
        "capabilities": "0" * 16,
        "seccomp": "2",
        "data": "200",
        "state": "tidegate 750",
        "reloaded": "policy in force",
        "restarts": "1",
        "again": "200",
        "refused": "failed 2 0",
    }


def test_a_restart_behind_the_socket_refuses_no_connection(boot: Boot) -> None:
    said = boot(
        "tidegate.socket tidegate.service",
        """
        say status $(of StatusText)
        ask() {
          asked=0; failed=0; end=$((SECONDS + 8))
          while [ $SECONDS -lt $end ]; do
            asked=$((asked + 1)); [ "$(code http://127.0.0.1:80/v1/models)" = 200 ] || failed=$((failed + 1))
          done
          say enough $([ $asked -gt 50 ] && echo yes || echo $asked)
          say failed $failed
        }
        ask & asking=$!
        sleep 2
        before=$(of MainPID); systemctl restart tidegate
        [ "$(of MainPID)" = "$before" ] || say restarted yes
        wait $asking
        """,
    )
    assert said == {"status": "serving on 127.0.0.1:80", "restarted": "yes", "enough": "yes", "failed": "0"}
