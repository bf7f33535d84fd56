"""What a request takes under a plan: on each tier, over each link, and in all.

These are the records that `objective.evaluate` makes and that a plan's file holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from dnnsplit_onnx.graph.ports import FILES

#: `custom` is a function of the user's own, which a file cannot hold.
Objective = Literal["latency", "cost", "throughput", "energy", "weighted", "custom", "ttft", "tpot"]
#: The figures that are sums over tiers and links; throughput is one over a maximum.
Measure = Literal["latency", "cost", "energy", "weighted", "ttft", "tpot"]
#: What is proven of a plan: best over all downward-closed sets of the DAG, best over the
#: positions of the graph's order, or nothing (a heuristic, or cuts given by the user).
Optimality = Literal["dag", "order", "none"]

# What a file may say of a field. A figure that is unknown, or infinite, is null in a file.
_LARGEST_INT = 1 << 63


def _of_64_bits(value: int) -> int:
    if abs(value) >= _LARGEST_INT:
        raise ValueError("it takes more than 64 bits")
    return value


Whole = Annotated[int, Field(strict=True), AfterValidator(_of_64_bits)]
Real = Annotated[float, Field(strict=True)]
Figure = Annotated[Real, BeforeValidator(lambda value: math.nan if value is None else value)]
Truth = Annotated[bool, Field(strict=True)]


class Valued:
    """What has the figures that objectives are about."""

    __slots__ = ()

    latency_s: Figure
    cost_usd: Figure
    throughput_per_s: Figure
    energy_j: Real | None
    weighted: Real | None
    custom: Real | None
    ttft_s: Real | None
    tpot_s: Real | None

    def value(self, objective: Objective) -> float:
        """The figure that an objective is about; as bad as can be where it is unknown."""
        figure = {
            "latency": self.latency_s,
            "cost": self.cost_usd,
            "throughput": self.throughput_per_s,
            "energy": self.energy_j,
            "weighted": self.weighted,
            "custom": self.custom,
            "ttft": self.ttft_s,
            "tpot": self.tpot_s,
        }[objective]
        if figure is None or math.isnan(figure):
            return 0.0 if objective == "throughput" else math.inf
        return figure


@dataclass(frozen=True, slots=True)
class MachineShare:
    """What one machine of a tier computes of one region of its stage.

    Attributes:
        machine: Its name.
        start: First position of the region.
        stop: One past the last position.
        rows: First row and one past the last, of the value that the region makes last; None
            where the machine computes the region alone.
        flops: FLOPs of its tile, halo included.
        seconds: Time that it computes.
        sent_nbytes: Bytes that the first machine sends it.
        back_nbytes: Bytes that it sends back.
    """

    machine: str
    start: Whole
    stop: Whole
    rows: tuple[Whole, Whole] | None
    flops: Whole
    seconds: Figure
    sent_nbytes: Whole = 0
    back_nbytes: Whole = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """The nodes that a plan gives to one tier.

    Attributes:
        tier: The tier's name.
        start: First position.
        stop: One past the last position; equal to `start` for a tier without work.
        flops: FLOPs of these nodes.
        seconds: Time the tier needs for them.
        cost_usd: What that time costs.
        energy_j: Energy it takes, None if the tier's watts are unknown.
        memory_nbytes: Weights plus peak live values, None if unknown.
        machines: Where several machines share its rows: who computes what, region after
            region; a region's shares stand together.
        waiting_s: What a request waits for the tier on average, at the offered rate.
        utilisation: The share of time that the tier is busy at that rate, None without one.
        interpolated: Whether its seconds were shared out by FLOPs inside a measured segment.
        prefill_s: Of a text, its seconds for the prompt.
        step_s: Of a text, its seconds for a step.
        cache_nbytes: Of texts, the caches it keeps when the last token of all is made; None where
            unknown. They are part of its memory.
    """

    tier: str
    start: Whole
    stop: Whole
    flops: Whole
    seconds: Figure
    cost_usd: Figure
    energy_j: Real | None
    memory_nbytes: Whole | None = None
    machines: tuple[MachineShare, ...] = ()
    waiting_s: Figure = 0.0
    utilisation: Real | None = None
    interpolated: Truth = False
    prefill_s: Real | None = None
    step_s: Real | None = None
    cache_nbytes: Whole | None = None


@dataclass(frozen=True, slots=True)
class CodedValue:
    """A value that crosses a link in a code.

    Attributes:
        value: Its name.
        code: The code.
        raw_nbytes: Bytes of the value as it is.
        nbytes: Bytes that cross.
    """

    value: str
    code: str
    raw_nbytes: Whole
    nbytes: Whole


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a plan sends over one link.

    Attributes:
        source: The lower tier (`from` in JSON).
        target: The upper tier (`to` in JSON).
        position: The cut that this link crosses.
        nbytes: Bytes away from tier 0, None if they cannot be known.
        down_nbytes: Bytes of outputs that come back.
        seconds: Time the link is busy with a request, delays included.
        cost_usd: What the transfer costs.
        energy_j: Energy it takes, None if the link's watts are unknown.
        values: The values that cross, away from tier 0.
        code: How those of them are written to which it applies; the others cross as they are.
        coded: The values that are written in it.
        waiting_s: What a request waits for the link on average, at the offered rate.
        utilisation: The share of time that the link is busy at that rate, None without one.
        once_nbytes: Bytes of states that stay for a whole sequence, which cross with its first
            request and no other; None if they cannot be known. No other figure holds them.
        once_seconds: What these add to the first request, None if it cannot be known.
        raw_nbytes: What would cross without the code; None if that is unknown, or the code is `raw`.
        prefill_s: Of a text, the seconds that the prompt takes on the link.
        step_s: Of a text, those of a step.
        prefill_nbytes: Of a text, what crosses for the prompt.
        step_nbytes: Of a text, what crosses in a step.
    """

    source: Annotated[str, Field(validation_alias="from")]
    target: Annotated[str, Field(validation_alias="to")]
    position: Whole
    nbytes: Whole | None
    down_nbytes: Whole
    seconds: Figure
    cost_usd: Figure
    energy_j: Real | None
    values: tuple[str, ...] = ()
    code: str = "raw"
    coded: tuple[CodedValue, ...] = ()
    waiting_s: Figure = 0.0
    utilisation: Real | None = None
    once_nbytes: Whole | None = 0
    once_seconds: Real | None = 0.0
    raw_nbytes: Whole | None = None
    prefill_s: Real | None = None
    step_s: Real | None = None
    prefill_nbytes: Whole | None = None
    step_nbytes: Whole | None = None

    @property
    def written(self) -> str:
        """How what crosses is written: its code, and the kinds of files among it."""
        files = dict.fromkeys(one.code for one in self.coded if one.code in FILES)
        return ", ".join((*([] if self.code == "raw" and files else [self.code]), *files))

    @property
    def ratio(self) -> float | None:
        """How many times smaller its code makes what crosses; None if that is unknown."""
        return self.raw_nbytes / self.nbytes if self.raw_nbytes is not None and self.nbytes else None


@dataclass(frozen=True, slots=True)
class Figures(Valued):
    """What one request takes under a plan.

    Attributes:
        stages: One a tier.
        links: One a link.
        latency_s: Sum of all stage and transfer seconds, and of waiting where a rate is offered.
        cost_usd: Sum of all costs.
        throughput_per_s: One over the slowest tier or link, each being a pipeline stage.
        energy_j: Sum of all energies; None unless every tier and link in use has watts.
        weighted: The weighted sum of these, if weights were given and what they weigh is
            known.
        custom: What a function of the user's own makes of these, if it is the objective.
        ttft_s: Of a text, the time to its first token.
        tpot_s: Of a text, the time of each token after it, at the mean length of the past.
        check_s: Of a text with drafts, the time of a pass that checks them.
        ttft_overlapped_s: Of a prompt in chunks, the time to the first token where these follow one
            another over the tiers.

    Figures that depend on a cut of unknown size are NaN.
    """

    stages: tuple[Stage, ...]
    links: tuple[Transfer, ...]
    latency_s: Figure
    cost_usd: Figure
    throughput_per_s: Figure
    energy_j: Real | None
    weighted: Real | None = None
    custom: Real | None = None
    ttft_s: Real | None = None
    tpot_s: Real | None = None
    ttft_overlapped_s: Real | None = None
    check_s: Real | None = None

    @property
    def cuts(self) -> tuple[int, ...]:
        """The position each link crosses, from tier 0 up."""
        return tuple(stage.stop for stage in self.stages[:-1])

    @property
    def codes(self) -> tuple[str, ...]:
        """The code of each link, from tier 0 up."""
        return tuple(link.code for link in self.links)


@dataclass(frozen=True, slots=True)
class SingleTier(Valued):
    """Everything on one tier, for comparison.

    Attributes:
        tier: The tier's name.
        feasible: Whether it keeps to the limits.
    """

    tier: str
    latency_s: Figure
    cost_usd: Figure
    throughput_per_s: Figure
    energy_j: Real | None
    feasible: Truth
    weighted: Real | None = None
    custom: Real | None = None
    ttft_s: Real | None = None
    tpot_s: Real | None = None


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """A plan that no other beats in latency, cost and throughput at once."""

    cuts: tuple[Whole, ...]
    latency_s: Figure
    cost_usd: Figure
    throughput_per_s: Figure
    energy_j: Real | None
