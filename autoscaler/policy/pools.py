"""Settings of the controller: pools, objectives, limits, prices."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BeforeValidator, Field, field_validator, model_validator

from autoscaler.policy.actuators import ActuatorSettings, DryRunSettings
from autoscaler.policy.balancers import BalancersSettings
from autoscaler.policy.keda import KedaSettings
from autoscaler.policy.kubernetes import KubernetesSettings
from autoscaler.policy.lease import LeaseSettings
from lb.settings.durations import Seconds
from lb.settings.proxy import Section


def _share(value: object) -> object:
    """`1%` to 0.01; a bare number is taken as it is."""
    if isinstance(value, str) and value.endswith("%"):
        try:
            return float(value[:-1]) / 100.0
        except ValueError:
            raise ValueError(f"{value!r} is not a share; write 1% or 0.01") from None
    return value


Share = Annotated[float, BeforeValidator(_share, json_schema_input_type=float | str), Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=100_000)]


class Mode(StrEnum):
    """How far the controller may go."""

    OBSERVE = "observe"
    """Learn, decide nothing."""
    ADVISE = "advise"
    """Decide and say so; touch nothing."""
    OWN = "own"
    """Decide and act."""


class ObjectiveSettings(Section):
    """What a request may expect, and how often it may be disappointed."""

    misses: Share = 0.01
    """Share of requests that may miss the limits below; the controller finds the margin that this takes."""
    first_token_s: Annotated[Seconds, Field(gt=0)] = 2.0
    """Longest time to first token that is not a miss: people take a chat for stuck after about two seconds."""
    inter_token_s: Annotated[Seconds, Field(gt=0)] = 0.1
    """Longest mean gap between tokens that is not a miss: about the speed of reading."""


class StartSettings(Section):
    """What is believed of start-ups before any was seen, and what is done about those that fail."""

    p50_s: Annotated[Seconds, Field(gt=0)] = 100.0
    """Median time from asking for a replica to its being warm; a node that is there, an image to pull."""
    p95_s: Annotated[Seconds, Field(gt=0)] = 240.0
    """Its 95 % quantile."""
    give_up_s: Annotated[Seconds, Field(gt=0)] = 900.0
    """A start that takes longer (and longer than three times the learned 95 % quantile) is given up: 15 minutes is
    what cluster-autoscaler waits for a node."""
    failures: Annotated[int, Field(ge=1)] = 3
    """Failed starts in a row after which a kind rests for `rest_s`, so that a broken image does not loop."""
    rest_s: Annotated[Seconds, Field(gt=0)] = 600.0
    """First rest of a kind that fails; doubles with each further failure, up to eight times."""
    unseen_s: Annotated[Seconds, Field(gt=0)] = 120.0
    """A start that was asked for and is in no observation for this long is asked for again, with the same name."""


class CapacitySettings(Section):
    """How much demand a replica serves under the objective."""

    unit: Literal["requests", "prompt_tokens", "output_tokens"] = "requests"
    """What demand is counted in. Tokens are steadier where lengths drift; requests are exact."""
    per_replica: Annotated[float, Field(gt=0)] | None = None
    """Units per second that one replica serves; None: learned from the first saturation on, and until then from
    what the balancer knows of the replica's speed."""
    confidence: Annotated[float, Field(ge=0)] = 20.0
    """Weight of that number in minutes of observed saturation."""


class ReactiveRule(Section):
    """Scale on a measured signal, as operators have long done."""

    signal: Literal[
        "gpu_utilization", "kv_usage", "queue_per_replica", "first_token", "inter_token", "latency", "output_tokens"
    ]
    """What is watched: ratios 0..1, requests queued a replica, seconds at the percentile that is measured, output
    tokens a second and replica."""
    above: Annotated[float, Field(ge=0)]
    """More than this for `duration_s`: scale up."""
    below: Annotated[float, Field(ge=0)] | None = None
    """The rule agrees to fewer replicas only under this (hysteresis); None: 70 % of `above`."""
    duration_s: Annotated[Seconds, Field(ge=0)] = 60.0
    """How long it must be above; a signal that dips under in between starts anew."""
    step: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the ready replicas added at a time, at least one. Ratios are answered in proportion if that is more."""

    @model_validator(mode="after")
    def _hysteresis(self) -> ReactiveRule:
        if self.below is not None and self.below > self.above:
            raise ValueError(f"below = {self.below} must not be more than above = {self.above}")
        return self


class ScheduleEntry(Section):
    """A floor at known times."""

    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ()
    """Days on which it starts; empty: every day."""
    start: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    """Local time `HH:MM` at which the replicas are to be ready; they are asked for a lead time earlier."""
    end: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    """Local time `HH:MM` at which it ends; earlier than `start`: on the next day."""
    zone: str = "UTC"
    """Name from the time zone database; wall clocks that jump are followed."""
    replicas: Annotated[int, Field(ge=0)]
    """Least replicas in that time."""

    @field_validator("zone")
    @classmethod
    def _known(cls, zone: str) -> str:
        if zone not in available_timezones():
            raise ValueError(f"{zone!r} is no time zone; write a name such as Europe/Berlin")
        return zone

    @property
    def tz(self) -> ZoneInfo:
        return ZoneInfo(self.zone)


class PredictiveSettings(Section):
    """Capacity for the demand that comes while a replica starts."""

    enabled: bool = True
    """Off: only rules, saturation, schedule and floor."""
    quantile: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Fixed quantile of demand to provision for, such as 0.95; None: found from the objective and what is observed."""
    memory_s: Annotated[Seconds, Field(gt=0)] = 7 * 86_400.0
    """Half-life of what margins are judged by: a week holds every weekday once."""
    growth: Annotated[float, Field(ge=1)] = 3.0
    """A prediction never asks for more than this many times the highest demand of the last day, so that a poisoned
    or exploding forecast costs a bounded sum."""


class DownSettings(Section):
    """When capacity is given back."""

    hold_s: Annotated[Seconds, Field(ge=0)] | None = None
    """All sources must have agreed for this long. None: 2.2 median lead times, as what is wanted again within two of
    them was stopped for nothing, and at least 6m."""
    payback_s: Annotated[Seconds, Field(ge=0)] = 900.0
    """Nothing is given back within this time of the last removal: several go at once then. Unless it is 0, nothing is
    given back within two lead times of the last start either, nor what a forecast wants again within lead time + this
    (at most five minutes of it): stopping it would save less than its start costs."""
    drain_s: Annotated[Seconds, Field(gt=0)] = 600.0
    """Requests of a replica that leaves may run this long."""
    on_deadline: Literal["wait", "stop"] = "wait"
    """After that: go on waiting and say so, or stop it and cut what runs."""
    blind_s: Annotated[Seconds, Field(gt=0)] = 900.0
    """A signal that stays missing for this long no longer holds capacity up, if demand and fleet are well known. Blind
    to demand or fleet itself nothing is lowered, ever; after this time it is reported as a fault."""


class RateSettings(Section):
    """Bounds on how fast the number of replicas changes."""

    up_step: Annotated[int, Field(ge=1)] = 100
    """Most replicas added in one decision."""
    down_step: Annotated[int, Field(ge=1)] = 100
    """Most replicas removed in one decision."""
    window_s: Annotated[Seconds, Field(gt=0)] = 3600.0
    """Window of the two limits below."""
    up: Annotated[int, Field(ge=1)] = 1000
    """Most replicas added within the window."""
    down: Annotated[int, Field(ge=1)] = 1000
    """Most replicas removed within the window."""
    reversals: Annotated[int, Field(ge=1)] = 8
    """Turns between up and down within two median lead times, over the last day, after which each further one doubles
    the hold time (flap guard), up to eight times."""


class PriceSettings(Section):
    """Money, for the trade between idle capacity and misses."""

    miss: Annotated[float, Field(ge=0)] | None = None
    """Price of one request past the objective. With it the share of misses follows from prices, and
    `objective.misses` is the upper bound."""


class KindSettings(Section):
    """One way to run a replica of the pool: a GPU type, on demand or spot."""

    name: str = "default"
    """For people, actuators and metrics."""
    gpus: Annotated[int, Field(ge=0)] = 1
    """GPUs a replica takes."""
    gpu_hour: Annotated[float, Field(ge=0)] = 2.5
    """Price of one GPU for an hour; the default is a usual on-demand price of a data-centre card, in dollars."""
    speed: Annotated[float, Field(gt=0)] = 1.0
    """Capacity relative to the pool's `capacity.per_replica`."""
    watts: Annotated[float, Field(ge=0)] = 700.0
    """Power of a replica at work, for the power budget; one large card's limit."""
    max_replicas: Count | None = None
    """None: only the pool's bound."""
    spot: bool = False
    """May be reclaimed at any time."""
    reclaims_per_day: Annotated[float, Field(ge=0)] = 1.0
    """Expected reclaims of a spot replica a day: its capacity is discounted by the share of time a replacement
    takes to start."""


class PoolSettings(Section):
    """Replicas that are scaled together: the same models, behind one balancer."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
    """For people, metrics and names of replicas; letters, digits, `.`, `-`, `_`."""
    models: tuple[str, ...] = ()
    """Models whose demand it serves; empty: all."""
    mode: Mode = Mode.ADVISE
    """`observe`, `advise` or `own`. A new pool is advised: trust comes after proof."""
    actuator: ActuatorSettings = DryRunSettings()
    """What starts and ends its replicas; by default nothing does."""
    min_replicas: Count = 1
    """Never fewer. 0: the last one goes too, and the first request waits for a start."""
    max_replicas: Count = 10
    """Never more, whatever any source wants."""
    priority: int = 0
    """Who is served first when a budget is short; lower goes first."""
    objective: ObjectiveSettings = ObjectiveSettings()
    """What requests may expect."""
    start: StartSettings = StartSettings()
    """What is believed of start-ups."""
    capacity: CapacitySettings = CapacitySettings()
    """What a replica serves."""
    predictive: PredictiveSettings = PredictiveSettings()
    """Capacity ahead of demand."""
    rules: tuple[ReactiveRule, ...] = ()
    """Reactive rules; none: saturation and prediction suffice."""
    backlog_s: Annotated[Seconds, Field(gt=0)] = 120.0
    """Predicted seconds of work per ready replica past which the pool is saturated and gets more. A full batch of
    long answers is a minute of work and no sign of trouble."""
    schedule: tuple[ScheduleEntry, ...] = ()
    """Floors at known times."""
    down: DownSettings = DownSettings()
    """When capacity is given back."""
    rate: RateSettings = RateSettings()
    """How fast the number may change."""
    price: PriceSettings = PriceSettings()
    """What a miss costs."""
    kinds: Annotated[tuple[KindSettings, ...], Field(min_length=1)] = (KindSettings(),)
    """Ways to run a replica; the cheapest per unit of capacity is taken first."""
    spot_share: Share = 1.0
    """Most of the pool's capacity that may be spot."""
    stale_s: Annotated[Seconds, Field(gt=0)] = 60.0
    """Readings older than this are not believed: four missed ones at the usual 15 s."""
    human_s: Annotated[Seconds, Field(ge=0)] = 1800.0
    """A change of the number of replicas by somebody else is left alone for this long."""

    @model_validator(mode="after")
    def _bounds(self) -> PoolSettings:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas = {self.min_replicas} must not be more than max_replicas = {self.max_replicas}"
            )
        names = [kind.name for kind in self.kinds]
        if len(set(names)) < len(names):
            raise ValueError(f"kinds must have different names, not {', '.join(names)}")
        if isinstance(self.actuator, KubernetesSettings):
            self._check_workloads(self.actuator, names)
        return self

    def _check_workloads(self, actuator: KubernetesSettings, names: list[str]) -> None:
        scaled = [one.kind for one in actuator.workloads]
        for kind in names:
            if kind not in scaled:
                raise ValueError(
                    f"nothing runs replicas of kind {kind}; add {{name: ..., kind: {kind}}} to `workloads`"
                )
        for kind in scaled:
            if kind not in names:
                raise ValueError(f"a workload is of kind {kind}, but `kinds` has only {', '.join(names)}")


class BudgetSettings(Section):
    """Bounds over all pools together."""

    gpus: Count | None = None
    """Most GPUs; None: no bound."""
    money_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Most money an hour; None: no bound."""
    watts: Annotated[float, Field(ge=0)] | None = None
    """Most power; None: no bound."""


class ScalingSettings(Section):
    """The controller."""

    interval_s: Annotated[Seconds, Field(ge=1)] = 15.0
    """Between ticks; the cadence of the Kubernetes autoscaler."""
    pools: tuple[PoolSettings, ...] = ()
    """What is scaled; none: nothing is."""
    budget: BudgetSettings = BudgetSettings()
    """Bounds over all pools."""
    balancers: tuple[BalancersSettings, ...] = ()
    """Balancers elsewhere (not this process) whose demand counts, too. Their policies have the same pools, in mode
    `observe`, so that they count misses."""
    lease: LeaseSettings | None = None
    """Kubernetes Lease that decides which of several controllers acts; None: this process is the only one."""
    keda: KedaSettings | None = None
    """Tells KEDA the sizes of pools in mode `advise`, as its external scaler; None: it does not."""

    @model_validator(mode="after")
    def _names(self) -> ScalingSettings:
        names = [pool.name for pool in self.pools]
        if len(set(names)) < len(names):
            raise ValueError(f"pools must have different names, not {', '.join(names)}")
        return self
