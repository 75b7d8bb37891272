"""One controller of several, as a process: while it leads it sets a number that says who and in which term it was.

python -m tests.kubernetes.candidate URL CA TOKEN_FILE NAMESPACE INDEX LEASE_SETTINGS_AS_JSON
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import sys
from pathlib import Path

from autoscaler.actuator import ActuatorError
from autoscaler.actuators.kubernetes.workload import ChangedError, Workload
from autoscaler.loops.kubernetes_lease import KubernetesLease
from autoscaler.loops.leader import LeaderLoop
from autoscaler.policy.kubernetes import WorkloadSettings
from autoscaler.policy.lease import LeaseSettings
from lb.kube import Explicit, KubeApi, Pace

RESOURCE = "test.tidegate.dev/v1/fleets"


async def act(loop: LeaderLoop, workload: Workload, index: int, rng: random.Random) -> None:
    """Look, think, write: as the real loop does, only faster."""
    step = 0
    while True:
        await asyncio.sleep(rng.uniform(0.005, 0.05))
        if not loop.leads():
            continue
        term = loop.term
        with contextlib.suppress(ActuatorError, ChangedError):
            view = await workload.read()
            await asyncio.sleep(rng.uniform(0.0, 0.05))
            step += 1
            await workload.scale(view, term * 1_000_000 + index * 100_000 + step % 100_000)


async def main(url: str, ca: str, token: str, namespace: str, index: int, settings: LeaseSettings) -> None:
    form = f"%(relativeCreated)d candidate {index} %(message)s %(reason)s"
    logging.basicConfig(level=logging.INFO, format=form)
    logging.getLogger().handlers[0].setFormatter(logging.Formatter(form, defaults={"reason": ""}))
    rng = random.Random(index)
    access = Explicit(url, Path(ca), Path(token))
    loop = LeaderLoop(
        settings, f"candidate-{index}-{os.getpid()}", KubernetesLease(access, settings, namespace), rng=rng
    )
    api = KubeApi(access, rng=rng, deadline_s=settings.call_s)
    # A test of minutes has to do what takes hours at the pace of real controllers.
    api.pace = Pace(rng, rate_per_s=1000.0, burst=1000, spacing_s=0.05, longest_s=0.2)
    workload = Workload(api, WorkloadSettings(name="llm", resource=RESOURCE), namespace, "tidegate", loop.leads)
    await asyncio.gather(loop.run(), act(loop, workload, index, rng))


if __name__ == "__main__":
    url, ca, token, namespace, index, settings = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(url, ca, token, namespace, int(index), LeaseSettings.model_validate_json(settings)))
