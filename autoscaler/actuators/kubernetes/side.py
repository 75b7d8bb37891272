"""One kind of replica of a pool: its workload, what was asked of it, and how that becomes numbers and evictions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from autoscaler.actuator import ActuatorError, Observed
from autoscaler.actuators.kubernetes import marks, objects, pods, removal
from autoscaler.actuators.kubernetes.budgets import keeps
from autoscaler.actuators.kubernetes.ledger import Ledger
from autoscaler.actuators.kubernetes.objects import Object
from autoscaler.actuators.kubernetes.ownership import Fights, Ownership, judge
from autoscaler.actuators.kubernetes.workload import ChangedError, View, Workload
from autoscaler.fleet import Phase
from autoscaler.policy.kubernetes import KubernetesSettings
from lb.clock import Clock

_ATTEMPTS = 5
"""Tries of a write that meets a newer version: every change of a pod's readiness makes one."""


class Side:
    """Used from one task at a time. `alone`: the pool has no other kind, so that its totals are this side's."""

    def __init__(
        self, settings: KubernetesSettings, workload: Workload, clock: Clock, *, alone: bool, owns: bool
    ) -> None:
        self.workload = workload
        self.kind = workload.settings.kind
        self.view: View | None = None
        self.ownership: Ownership | None = None
        self._settings = settings
        self._clock = clock
        self._alone = alone
        self._owns = owns
        self._ledger = Ledger()
        self._fights = Fights()

    # ------------------------------------------------------------------ looking

    async def look(self) -> View:
        """Read everything."""
        return self._saw(await self.workload.read())

    async def _look_again(self) -> View:
        """Read what changes from second to second."""
        return self._saw(await (self.workload.read() if self.view is None else self.workload.read_again(self.view)))

    def _saw(self, view: View) -> View:
        now = self._clock.monotonic()
        manager, override = self._settings.field_manager, self._settings.override
        ownership = judge(view.target, view.scalers, manager, override=override, fights=self._fights.with_whom(now))
        self._fights.saw(ownership, now)
        self._ledger.saw(view.pods, view.replicas)
        self.view, self.ownership = view, ownership
        return view

    def knows(self, uid: str) -> bool:
        return self.view is not None and any(objects.uid(pod) == uid for pod in self.view.pods)

    def reading(self) -> pods.Reading:
        now, settings = self._clock.monotonic(), self._settings
        return pods.Reading(
            self.kind, now, now - self._clock.wall(), settings.gpu_resource, settings.crashes, settings.pull_s,
            settings.port, settings.weights_condition,
        )  # fmt: skip

    def replicas(self, nodes: dict[str, Object]) -> list[Observed]:
        """Pods of the last look as replicas."""
        assert self.view is not None
        view, reading = self.view, self.reading()
        by_ordinal = self.workload.settings.by_ordinal
        first = removal.next_by_ordinal(view.pods, self._ledger.ending | self._ledger.draining.keys())
        found = []
        for pod in view.pods:
            held = pods.is_ready(pod) and keeps(view.budgets, pod)
            if by_ordinal and objects.uid(pod) not in (first, *self._ledger.draining):
                held = held or pods.is_active(pod)
            node = nodes.get(objects.text(pod, "spec", "nodeName"))
            found.append(pods.observed(pod, node, reading, protected=held, start_id=self._name(pod)))
        return found

    def _name(self, pod: Object) -> str | None:
        return self._ledger.names.get(objects.uid(pod))

    def _failed(self, view: View) -> set[str]:
        reading = self.reading()
        return {objects.uid(pod) for pod in view.pods if pods.observed(pod, None, reading).fact.phase is Phase.FAILED}

    # ------------------------------------------------------------------ marks

    async def keep_marks(self, most: int) -> int:
        """Make annotations what they should be, at most so many; returns how many calls that took."""
        if self.view is None or not self._owns or self.ownership is None or self.ownership.rival:
            return 0
        done = 0
        for pod in self.view.pods:
            if done >= most:
                break
            if not pods.is_active(pod) or marks.change(pod, self._marks(pod), self._settings.field_manager) is None:
                continue
            await self._mark(objects.uid(pod))
            done += 1
        return done

    def _marks(self, pod: Object) -> dict[str, str]:
        uid, ledger = objects.uid(pod), self._ledger
        return marks.desired(
            pod, start_id=ledger.names.get(uid), draining=ledger.draining.get(uid), ending=uid in ledger.ending
        )

    # ------------------------------------------------------------------ actions

    async def scale_up(self, start_ids: Iterable[str], total: int) -> None:
        """Names that exist are not started again; the number is only ever raised here."""
        view = await self._look_again()
        self._ledger.ask(start_ids)
        await self._write(view, self._total(total), lower=False)

    async def drain(self, uid: str, reason: str) -> None:
        """Say on the pod that it leaves."""
        if self.knows(uid):
            self._ledger.draining[uid] = reason[:200]
            await self._mark(uid)

    async def undrain(self, uid: str) -> None:
        """Take it back. If a lower number is about to take it, that is raised again first."""
        if not self.knows(uid):
            return
        self._ledger.draining.pop(uid, None)
        if uid in self._ledger.ending:
            view = await self._look_again()
            if sum(map(pods.is_active, view.pods)) > view.replicas:
                await self._raise(view)
            self._ledger.spare(uid)
        await self._mark(uid)

    async def _raise(self, view: View) -> None:
        """One more than now, before a pod ends whose end is no longer wanted."""
        self._must_own()
        try:
            self.view = await self.workload.scale(view, view.replicas + 1)
        except ChangedError:
            raise ActuatorError(f"{self.workload.what} changed meanwhile; tried again next tick") from None
        self._fights.wrote()

    async def _mark(self, uid: str) -> None:
        """Make the annotations of one pod what they should be."""
        assert self.view is not None
        for index, pod in enumerate(self.view.pods):
            if objects.uid(pod) == uid and pods.is_active(pod):
                marked = await self.workload.mark(pod, self._marks(pod))
                known = self.view.pods
                self.view = replace(self.view, pods=(*known[:index], marked, *known[index + 1 :]))

    async def stop(self, uid: str, total: int) -> None:
        """End one pod and lower the number by it."""
        view = await self._look_again()
        await self._end(view, uid, self._total(total), self._ledger.stopped)

    async def give_up(self, start_id: str | None, uid: str | None, total: int) -> None:
        """End a start, unless its pod has become ready."""
        view = await self._look_again()
        if uid is None and not self._alone and (start_id is None or not self._ledger.knows(start_id)):
            return  # a start of another kind
        if start_id is not None:
            named = [one for one, name in self._ledger.names.items() if name == start_id]
            uid = uid or (named[0] if named else None)
            self._ledger.withdraw(start_id)
        pod = next((one for one in view.pods if objects.uid(one) == uid), None)
        if pod is None:
            await self._write(view, self._total(total), lower=True)
        elif not pods.is_ready(pod):
            await self._end(view, objects.uid(pod), self._total(total), self._ledger.given_up)

    def _total(self, total: int) -> int | None:
        return total if self._alone else None

    def _number(self, view: View, total: int | None) -> int:
        unseen = self._ledger.unseen(view.pods, total, self._failed(view))
        return removal.wanted(view.pods, self._ledger.ending, unseen)

    async def _end(self, view: View, uid: str, total: int | None, told: set[str]) -> None:
        """Lower the number so that this pod goes, or evict it first where the number would take another. `told`: the
        part of the ledger where this is written down."""
        pod = next((one for one in view.pods if objects.uid(one) == uid), None)
        if pod is not None and pods.is_over(pod):
            await self.workload.discard(pod)
            return
        if pod is None or not pods.is_active(pod):
            return
        self._must_own()
        if removal.rolls_out(view.pods):
            raise ActuatorError(
                f"{self.workload.what} is in the middle of a rollout; which pods a lower number takes is open, so "
                f"{objects.name(pod)} waits", retry_after_s=15.0,
            )  # fmt: skip
        told.add(uid)
        active = sum(pods.is_active(one) for one in view.pods)
        number = self._number(view, total)
        if number >= view.replicas:
            if active <= view.replicas:
                await self.workload.evict(pod)  # its place is taken by a start that is wanted
            return  # otherwise the number is low already, and the pod about to be ended
        if self.workload.settings.by_ordinal:
            self._check_ordinal(view, pod)
        elif not removal.cost_decides(view.pods, self._ledger.ending):
            view = await self._evict(view, pod)
        else:
            view = await self._mark_all()
        await self._write(view, total, lower=True)

    async def _mark_all(self) -> View:
        """Put the lowest deletion cost on every pod that was told to end and take it off all others, those included
        where that failed before."""
        assert self.view is not None
        for uid in removal.mismarked(self.view.pods, self._ledger.ending):
            await self._mark(uid)
        return self.view

    async def _evict(self, view: View, pod: Object) -> View:
        """Evict it while the number is still high. A replacement that was made in between is to go, too."""
        before = {objects.uid(one) for one in view.pods}
        await self.workload.evict(pod)
        view = await self._look_again()
        fresh = [one for one in view.pods if objects.uid(one) not in before | self._ledger.names.keys()]
        made = {objects.uid(one) for one in fresh if pods.is_active(one)}
        if removal.cost_decides(view.pods, self._ledger.ending | made):
            self._ledger.given_up |= made
            for one in fresh:
                await self._mark(objects.uid(one))
        assert self.view is not None
        return self.view

    def _check_ordinal(self, view: View, pod: Object) -> None:
        if removal.ordinal_decides(view.pods, self._ledger.ending):
            return
        self._ledger.spare(objects.uid(pod))
        top = removal.next_by_ordinal(view.pods, self._ledger.ending)
        above = next((objects.name(one) for one in view.pods if objects.uid(one) == top), "another")
        raise ActuatorError(
            f"{objects.name(pod)} cannot go before {above}: {self.workload.what} ends its highest ordinal first"
        )

    async def _write(self, view: View, total: int | None, *, lower: bool) -> None:
        """Write the number, and look again if something changed since it was worked out."""
        for _ in range(_ATTEMPTS):
            number = self._number(view, total)
            if number == view.replicas or (number < view.replicas) != lower:
                return
            self._must_own()
            if lower:
                self._must_be_theirs(view)
            try:
                self.view = await self.workload.scale(view, number)
                self._fights.wrote()
                return
            except ChangedError:
                before = view.replicas
                view = await self._look_again()
                if view.replicas != before:
                    raise ActuatorError(
                        f"{self.workload.what} was set from {before} to {view.replicas} by somebody else meanwhile; "
                        f"decided anew at the next tick"
                    ) from None
        raise ActuatorError(f"{self.workload.what} changed {_ATTEMPTS} times while it was to be scaled")

    def _must_be_theirs(self, view: View) -> None:
        """A lower number must take the pods that were told to end, also after what has changed meanwhile."""
        ending = self._ledger.ending
        late = [one for one in view.pods if objects.uid(one) in self._ledger.given_up and pods.is_ready(one)]
        if late:
            raise ActuatorError(
                f"{objects.name(late[0])} became ready while it was about to be ended; nothing more is ended until it "
                f"is clear whether it stays"
            )
        if self.workload.settings.by_ordinal:
            sure = removal.ordinal_decides(view.pods, ending)
        else:
            sure = removal.cost_decides(view.pods, ending) and not removal.mismarked(view.pods, ending)
        if not sure:
            raise ActuatorError(
                f"{self.workload.what}: another pod would go than the one that was drained; looked at again next tick"
            )

    def _must_own(self) -> None:
        if self.ownership is not None and self.ownership.rival:
            raise ActuatorError(
                f"{self.ownership.rival}; Tidegate does not fight over it: {self.ownership.advice}", retry_after_s=60.0
            )
