"""What a sensible engineer would do in place of a split, each priced as a split is.

    single    everything on one tier, the input sent as a tensor
    input     the input sent smaller, everything on the best upper tier
    small     a smaller model on the lowest tier
    cascade   the small model answers where it is sure, the large one above where it is not
    tiles     the rows of early layers shared by the machines of the lowest tier
    split     the best split, raw, and with codes

Each is an ordinary problem, and `Problem.figures` prices it (`planning.rivalry` makes them). What a
row takes for granted that its price cannot show stands beside it: `assumes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from dnnsplit_onnx.planning.comparing import worse_by
from dnnsplit_onnx.planning.figures import Objective, Valued
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.planning.weights import Weights
from dnnsplit_onnx.views import Tabled

Kind = Literal["single", "input", "small", "cascade", "tiles", "split"]
#: Whose answers a rival gives: the model's to the bit, close to them, or another model's.
Answers = Literal["same", "close", "other"]


@dataclass(frozen=True, slots=True)
class Rival(Valued):
    """One way to serve the model, or one like it.

    Attributes:
        name: What it does, in a few words.
        kind: Which of the module's table it is.
        answers: `same` as the model's, `close` where something was written with loss, or `other`.
        assumes: What its price takes for granted, each a sentence.
        cuts: The position that each link crosses; None where two models run.
        codes: The code of each link.
        tiers: Those that have work.
        latency_s: Seconds of a request; of a cascade, on average.
        cost_usd: What a request costs, on average.
        throughput_per_s: Requests a second, each tier and link being a stage.
        energy_j: Energy of a request, on average.
        weighted: The weighted sum, if it was asked for.
        custom: What a function of the user's own makes of its figures, if that is the objective.
        ttft_s: Of a text, the time to its first token.
        tpot_s: Of a text, the time of each token after it.
        feasible: Whether it keeps to the limits.
        violations: The limits that it breaks, each a sentence.
        gap: How much worse than the best feasible row, 0.1 being ten percent.
        accuracy: Of its answers, if the user gave it.
        agreement: The share of samples that it puts in the same class as the model, if that was measured.
        reason: Why there is no such plan.
    """

    name: str
    kind: Kind
    answers: Answers = "same"
    assumes: tuple[str, ...] = ()
    cuts: tuple[int, ...] | None = None
    codes: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()
    latency_s: float = math.nan
    cost_usd: float = math.nan
    throughput_per_s: float = math.nan
    energy_j: float | None = None
    weighted: float | None = None
    custom: float | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    feasible: bool = False
    violations: tuple[str, ...] = ()
    gap: float | None = None
    accuracy: float | None = None
    agreement: float | None = None
    reason: str | None = None

    @property
    def is_split(self) -> bool:
        """Whether several tiers or machines run parts of the one model."""
        return self.kind in ("split", "tiles")

    def to_dict(self) -> dict[str, Any]:
        """The rival as JSON-ready data; figures that are unknown or infinite are None."""
        figures = (
            "latency_s",
            "cost_usd",
            "throughput_per_s",
            "energy_j",
            "weighted",
            "custom",
            "ttft_s",
            "tpot_s",
            "gap",
        )
        return {
            "name": self.name,
            "kind": self.kind,
            "tiers": list(self.tiers),
            **{name: _finite(getattr(self, name)) for name in figures},
            "feasible": self.feasible,
            "answers": self.answers,
            "accuracy": self.accuracy,
            "agreement": self.agreement,
            "cuts": None if self.cuts is None else list(self.cuts),
            "codes": list(self.codes),
            "assumes": list(self.assumes),
            "violations": list(self.violations),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Rivals(Tabled):
    """A split beside everything that could be done in its place.

    Attributes:
        objective: What is to be best.
        rows: The rivals; splits come last.
        weights: What the objective `weighted` is.
        model: The model's file.
        unknowns: Why nothing of this is proven: see `Plan.unknowns`.
    """

    objective: Objective
    rows: tuple[Rival, ...]
    weights: Weights | None = None
    model: str | None = None
    unknowns: tuple[str, ...] = ()

    def best(self, *, split: bool | None = None, answers: Sequence[Answers] = ()) -> Rival | None:
        """The best row that keeps the limits; of equals, the first.

        Args:
            split: Only splits and shared rows, or only what is neither.
            answers: Only rows with these answers; none stands for all.
        """
        rows = [row for row in self.rows if row.feasible and split in (None, row.is_split)]
        rows = [row for row in rows if not answers or row.answers in answers]
        sign = -1.0 if self.objective == "throughput" else 1.0
        return min(rows, key=lambda row: sign * row.value(self.objective), default=None)

    @property
    def gain(self) -> float | None:
        """How many times better the best split is than the best of the others; None without both."""
        mine, theirs = self.best(split=True), self.best(split=False)
        if mine is None or theirs is None:
            return None
        over, under = theirs.value(self.objective), mine.value(self.objective)
        if self.objective == "throughput":
            over, under = under, over
        return over / under if under > 0 else None

    def records(self) -> list[dict[str, Any]]:
        """A row for each rival."""
        return [row.to_dict() for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON-ready data."""
        best, other, gain = self.best(), self.best(split=False), self.gain
        return {
            "model": self.model,
            "objective": self.objective,
            "weights": None if self.weights is None else self.weights.to_dict(),
            "best": None if best is None else best.name,
            "best_without_split": None if other is None else other.name,
            "gain_of_splitting": None if gain is None else _finite(gain),
            "unknowns": list(self.unknowns),
            "rivals": self.records(),
        }

    @property
    def ranked(self) -> Rivals:
        """The same rows, each with its gap to the best."""
        best = self.best()
        if best is None:
            return self
        least = best.value(self.objective)
        rows = tuple(
            replace(row, gap=worse_by(row.value(self.objective), least, self.objective)) for row in self.rows
        )
        return replace(self, rows=rows)


def priced(
    name: str,
    kind: Kind,
    problem: Problem,
    cuts: Sequence[int],
    codes: Sequence[str] = (),
    *,
    answers: Answers = "same",
    assumes: tuple[str, ...] = (),
    accuracy: float | None = None,
    agreement: float | None = None,
) -> Rival:
    """A plan of a problem as a rival."""
    figures = problem.figures(cuts, codes)
    broken = problem.violations(figures)
    value = figures.value(problem.objective)
    is_known = math.isfinite(value) and not (problem.objective == "throughput" and value == 0)
    return Rival(
        name,
        kind,
        answers,
        tuple(said for said in assumes if said),
        cuts=figures.cuts,
        codes=figures.codes,
        tiers=tuple(stage.tier for stage in figures.stages if stage.stop > stage.start),
        latency_s=figures.latency_s,
        cost_usd=figures.cost_usd,
        throughput_per_s=figures.throughput_per_s,
        energy_j=figures.energy_j,
        weighted=figures.weighted,
        custom=figures.custom,
        ttft_s=figures.ttft_s,
        tpot_s=figures.tpot_s,
        feasible=is_known and not broken,
        violations=broken,
        accuracy=accuracy,
        agreement=agreement,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
