"""The actuator of pools whose replicas are pods."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from autoscaler.action import Action, Drain, GiveUp, ScaleUp, Stop, Undrain
from autoscaler.actuator import ActuatorError, Observation, Observed
from autoscaler.actuators.kubernetes import full, objects, pods
from autoscaler.actuators.kubernetes.nodes import NodePool
from autoscaler.actuators.kubernetes.objects import Object
from autoscaler.actuators.kubernetes.report import Condition, Reporter
from autoscaler.actuators.kubernetes.side import Side
from autoscaler.actuators.kubernetes.workload import Workload, failed
from autoscaler.policy.kubernetes import KubernetesSettings
from lb.clock import Clock
from lb.kube import ForbiddenError, KubeApi, KubeError, NotFoundError

log = logging.getLogger(__name__)

LOOK_S = 8.0
"""Longest time for one look: in trouble calls are a second apart, and it takes six."""
UPKEEP_S = 3.0
"""Longest time for what is written after it; the rest waits for the next tick."""
_NODE_S = 60.0
"""How long a node that has its GPUs is believed to keep them."""
_MARKS = 8
"""Annotations written in one look: a look must end in time, and the next one goes on."""


class KubernetesActuator:
    """One pool. `may_act`: whether this process leads, asked before every write. `owns`: whether the pool is in mode
    own; without it nothing is ever written."""

    def __init__(
        self, name: str, settings: KubernetesSettings, api: KubeApi, namespace: str, clock: Clock, *,
        may_act: Callable[[], bool] = lambda: True, owns: bool = True,
        nodes: NodePool | None = None, reporter: Reporter | None = None, closes: bool = False,
    ) -> None:  # fmt: skip
        self._name = name
        self._settings = settings
        self._api = api
        self._namespace = namespace
        self._clock = clock
        self._may_act = may_act
        self._owns = owns
        self._nodes_ahead = nodes
        self._reporter = reporter
        self._closes = closes
        alone = len(settings.workloads) == 1
        self._sides = [
            Side(
                settings, Workload(api, one, namespace, settings.field_manager, may_act), clock, alone=alone, owns=owns
            )
            for one in settings.workloads
        ]
        self._nodes: dict[str, tuple[float, Object]] = {}
        """By name: when it was read, and how it was."""
        self._nodes_forbidden = False

    # ------------------------------------------------------------------ looking

    async def observe(self) -> Observation:
        """All pods of all kinds. Marks on pods and the number of nodes are brought up to date on the way."""
        try:
            async with asyncio.timeout(LOOK_S):
                seen = await self._observe()
        except TimeoutError:
            raise ActuatorError(f"pool {self._name}: the Kubernetes API took longer than {LOOK_S:g} s") from None
        except ActuatorError as error:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(UPKEEP_S):
                    await self._report_blind(error)
            raise
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UPKEEP_S):
                await self._after(seen)
        return seen

    async def _observe(self) -> Observation:
        await asyncio.gather(*(side.look() for side in self._sides))
        await self._read_nodes()
        nodes = {name: node for name, (_, node) in self._nodes.items()}
        replicas: list[Observed] = []
        for side in self._sides:
            replicas += side.replicas(nodes)
        return Observation(self._clock.monotonic(), tuple(replicas), True, self._wanted_by_others(), await self._full())

    def _wanted_by_others(self) -> int | None:
        """The sum over all kinds, if somebody else set one of the numbers."""
        wall, settings = self._clock.wall(), self._settings
        total, foreign = 0, False
        for side in self._sides:
            assert side.view is not None
            assert side.ownership is not None
            total += side.view.replicas
            wish = side.ownership.wanted_by_others(side.view.replicas, wall, settings.others_s)
            foreign = foreign or wish is not None
        return total if foreign else None

    async def _full(self) -> frozenset[str]:
        """Kinds of which a pod waits for a node in vain, or may not even be made."""
        wall = self._clock.wall()
        views = {side.kind: side.view for side in self._sides if side.view is not None}
        found = {kind for kind, view in views.items() if full.is_refused(view.target)}
        waiting = {kind: view for kind, view in views.items() if any(map(pods.waits_for_a_node, view.pods))}
        if waiting:
            refused = full.refusals(await self._events(), wall)
            limit_s = self._settings.full_s
            found |= {kind for kind, view in waiting.items() if full.is_full(view.pods, refused, wall, limit_s)}
        return frozenset(found)

    async def _events(self) -> tuple[Object, ...]:
        """What node autoscalers said of pods; a role without events learns only by waiting."""
        found: list[Object] = []
        for reason in ("NotTriggerScaleUp", "TriggeredScaleUp", "FailedScheduling", "Nominated"):
            query = {"fieldSelector": f"involvedObject.kind=Pod,reason={reason}"}
            try:
                listed = await self._api.list_all(f"/api/v1/namespaces/{self._namespace}/events", query)
            except (ForbiddenError, NotFoundError):
                return ()
            except KubeError as error:
                raise failed(f"pool {self._name}: events could not be read", error) from None
            found += listed.items
        return tuple(found)

    async def _read_nodes(self) -> None:
        """Nodes of pods that start, until they have their GPUs."""
        now = self._clock.monotonic()
        wanted: set[str] = set()
        present: set[str] = set()
        for side in self._sides:
            for pod in side.view.pods if side.view is not None else ():
                node = objects.text(pod, "spec", "nodeName")
                present.add(node)
                if node and pods.is_active(pod) and not pods.is_ready(pod):
                    wanted.add(node)
        self._nodes = {name: one for name, one in self._nodes.items() if name in present}
        due = [name for name in sorted(wanted) if self._is_stale(name, now)]
        if due and not self._nodes_forbidden:
            await asyncio.gather(*(self._read_node(name, now) for name in due[:_MARKS]))

    def _is_stale(self, name: str, now: float) -> bool:
        known = self._nodes.get(name)
        if known is None:
            return True
        at, node = known
        return now - at > _NODE_S or not pods.usable_gpus(node, self._settings.gpu_resource)

    async def _read_node(self, name: str, now: float) -> None:
        try:
            self._nodes[name] = (now, await self._api.get(f"/api/v1/nodes/{name}"))
        except NotFoundError:
            self._nodes.pop(name, None)
        except ForbiddenError:
            self._nodes_forbidden = True  # a role without nodes: stages of nodes are unknown, all else goes on
        except KubeError as error:
            raise failed(f"node {name} could not be read", error) from None

    # ------------------------------------------------------------------ upkeep

    async def _after(self, seen: Observation) -> None:
        """Writes that follow from a look. None of them may spoil it: what fails is tried again at the next."""
        if not self._owns or not self._may_act():
            return
        try:
            left = _MARKS
            for side in self._sides:
                left -= await side.keep_marks(left)
            if self._nodes_ahead is not None:
                await self._nodes_ahead.settle(seen)
        except ActuatorError as error:
            log.warning("pool %s: upkeep", self._name, extra={"reason": str(error)})
        await self._report(seen)

    async def _report(self, seen: Observation) -> None:
        if self._reporter is None:
            return
        rivals = [side.ownership for side in self._sides if side.ownership is not None and side.ownership.rival]
        conditions = [Condition("Observed", True, "Read", "the workload and its pods are read")]
        if rivals:
            conditions.append(Condition("Owned", False, "Rival", f"{rivals[0].rival}; {rivals[0].advice}"))
        else:
            conditions.append(Condition("Owned", True, "NoRival", "nobody else insists on the number of replicas"))
        reason, message = ("SoldOut", ", ".join(sorted(seen.full))) if seen.full else ("Available", "no kind is full")
        conditions.append(Condition("CapacityAvailable", not seen.full, reason, message))
        for side in self._sides:
            if side.ownership is not None and side.ownership.rival and side.view is not None:
                await self._reporter.event(side.view.target, "Warning", "NotOwned", side.ownership.rival)
        await self._reporter.conditions(self._name, conditions)

    async def _report_blind(self, error: ActuatorError) -> None:
        if self._reporter is not None and self._owns and self._may_act():
            await self._reporter.conditions(self._name, [Condition("Observed", False, "Unreadable", str(error))])

    # ------------------------------------------------------------------ acting

    async def apply(self, action: Action) -> None:
        """Carry out one action. Actions on pods that nobody knows (any more) do nothing."""
        if not self._owns:
            raise ActuatorError(f"pool {self._name} is not in mode own, so nothing of it is changed")
        match action:
            case ScaleUp():
                side = self._of_kind(action.kind)
                if self._nodes_ahead is not None:
                    await self._nodes_ahead.ahead_of(action.total)
                await side.scale_up(action.start_ids, action.total)
                await self._tell(side, "ScaledUp", f"{len(action.start_ids)} more wanted: {action.reason}")
            case Drain(replica=replica, reason=reason):
                for side in self._sides:
                    await side.drain(replica, reason)
            case Undrain(replica=replica):
                for side in self._sides:
                    await side.undrain(replica)
            case Stop(replica=replica, total=total, reason=reason):
                for side in await self._holding(replica):
                    await side.stop(replica, total)
                    await self._tell(side, "ScaledDown", f"pod {replica}: {reason}")
            case GiveUp(start_id=start_id, replica=replica, total=total, reason=reason):
                if self._nodes_ahead is not None:
                    await self._nodes_ahead.ahead_of(total)
                for side in self._sides if replica is None else await self._holding(replica):
                    await side.give_up(start_id, replica, total)
                    await self._tell(side, "GaveUp", f"start {start_id or replica}: {reason}")

    def _of_kind(self, kind: str) -> Side:
        for side in self._sides:
            if side.kind == kind:
                return side
        known = ", ".join(side.kind for side in self._sides)
        raise ActuatorError(f"pool {self._name} has no workload of kind {kind!r}, only {known}; add one to `workloads`")

    async def _holding(self, replica: str) -> list[Side]:
        if not any(side.knows(replica) for side in self._sides):
            await asyncio.gather(*(side.look() for side in self._sides))
        return [side for side in self._sides if side.knows(replica)]

    async def _tell(self, side: Side, reason: str, message: str) -> None:
        if self._reporter is not None and side.view is not None:
            await self._reporter.event(side.view.target, "Normal", reason, message)

    def target(self) -> Object:
        """The first workload as it was last seen; empty before the first look."""
        view = self._sides[0].view
        return {} if view is None else view.target

    async def close(self) -> None:
        """Pods stay, with their marks."""
        if self._closes:
            await self._api.close()
