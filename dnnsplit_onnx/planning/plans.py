"""A plan: which nodes each tier runs, what crosses each link, and what that will cost.

A plan is data, apart from the planner that chose it and from the slices made from it. It
can be written to a file, read again, and printed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from dnnsplit_onnx.errors import InputError, PlanError, first_fault
from dnnsplit_onnx.files import read_bounded
from dnnsplit_onnx.planning.figures import (
    Figures,
    Objective,
    Optimality,
    ParetoPoint,
    Real,
    SingleTier,
    Stage,
    Transfer,
    Truth,
    Whole,
)
from dnnsplit_onnx.planning.weights import Weights
from dnnsplit_onnx.views import draw

SCHEMA_VERSION = 1


def _weights(value: Any) -> Any:
    return Weights.of(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """The model that a plan is of.

    Attributes:
        path: Its file, as it was named; None in the manifest, which names it itself.
        nodes: How many nodes its graph has.
        flops: Its work.
        digest: What tells it from other models (`identity.model_digest`); None in plans of
            earlier releases.
    """

    path: str | None
    nodes: Whole
    flops: Whole
    digest: str | None = None


@dataclass(frozen=True, repr=False)
class Plan:
    """Stages, figures, and why they are best.

    Attributes:
        objective: What was asked for.
        planner: Who chose the cuts; "at" where the user gave them.
        optimality: What is proven of them.
        feasible: Whether the plan keeps to the limits.
        violations: The limits it breaks, each a sentence.
        figures: Stages, transfers and totals.
        single_tier: Everything on one tier, for each.
        pareto: Plans that no other beats in every figure, if they were asked for.
        order: Name of the node order that positions refer to.
        accounting: How cuts were priced: `live` or `layer-input`.
        bindings: Numbers bound to symbolic dimensions.
        limits: The limits it was made under.
        evaluated: How many cuts or combinations the planner looked at.
        notes: What else the planner says of them, each a sentence.
        lower_bound: What no plan over the DAG can fall below in the objective (for
            throughput: in the seconds of its slowest step); None if that is not known.
        gap: How far the plan is above the bound, relative to the plan; 0 if it is proven
            best over the DAG.
        weights: What the objective `weighted` was.
        permutation: Where the planner cut at sets of nodes that are no prefixes of the order
            it was given: positions of that order, in the order in which this plan's positions
            count the nodes (`order` is then `custom`). None elsewhere.
        cost_models: Where each tier's seconds come from: `gflops`, `roofline`, `profile`,
            `predictor`, or `custom` for those that the caller gave.
        topology: The tiers, links and limits it was made for, as the tables of a tiers file;
            None in plans of earlier releases.
        model: What it is a plan of; None in plans of earlier releases.
        uncounted_ops: Operators whose work is not counted, and how many nodes of each.
        order_digest: Digest of the model and of the order that positions count in
            (`identity.order_digest`); None in plans of earlier releases.
        node_order: Where the order's name is not enough to make it again: the places of the
            nodes in the model's file, in the order that positions count.
        states: What a run hands to the next, each as `IN=OUT`; None in plans of earlier
            releases.
        trips: How often loops run, as the user gave it.
        assumed: Those of the bindings that nobody gave: sizes at which the model runs.
        unknowns: Why nothing that is said to be best is proven: inputs of the figures that are
            not known, or were interpolated, each as a phrase.
        knows_enough: Whether its seconds say enough of the work for a verdict: not where operators
            without a count read over a tenth of the weights, and times were not measured.
        pareto_complete: Whether `pareto` holds every plan along the order that no other beats.
        pareto_count: How many there are, of those that were looked at.
    """

    objective: Objective
    planner: str
    optimality: Optimality
    feasible: Truth
    violations: tuple[str, ...]
    figures: Figures
    single_tier: tuple[SingleTier, ...]
    pareto: tuple[ParetoPoint, ...] = ()
    order: str = "file"
    accounting: str = "live"
    bindings: Mapping[str, Whole] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    evaluated: Whole = 0
    notes: tuple[str, ...] = ()
    lower_bound: Real | None = None
    gap: Real | None = None
    weights: Annotated[Weights | None, BeforeValidator(_weights)] = None
    permutation: tuple[Whole, ...] | None = None
    cost_models: tuple[str, ...] = ()
    topology: Mapping[str, Any] | None = None
    model: PlannedModel | None = None
    uncounted_ops: Mapping[str, Whole] = field(default_factory=dict)
    order_digest: str | None = None
    node_order: tuple[Whole, ...] | None = None
    states: tuple[str, ...] | None = None
    trips: Mapping[str, Whole] = field(default_factory=dict)
    assumed: Mapping[str, Whole] = field(default_factory=dict)
    unknowns: tuple[str, ...] = ()
    knows_enough: Truth = True
    pareto_complete: Truth = False
    pareto_count: Whole = 0

    @property
    def cuts(self) -> tuple[int, ...]:
        """The position each link crosses."""
        return self.figures.cuts

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What each tier runs."""
        return self.figures.stages

    @property
    def links(self) -> tuple[Transfer, ...]:
        """What each link carries."""
        return self.figures.links

    @property
    def latency_s(self) -> float:
        """Seconds of a request; `figures` has the other totals."""
        return self.figures.latency_s

    @property
    def codes(self) -> tuple[str, ...]:
        """The code of each link."""
        return self.figures.codes

    @property
    def best_single_tier(self) -> SingleTier | None:
        """The single tier with the best objective among the feasible ones, if any is known."""
        unknown = 0.0 if self.objective == "throughput" else math.inf
        known = [s for s in self.single_tier if s.feasible and s.value(self.objective) != unknown]
        if not known:
            return None
        sign = -1.0 if self.objective == "throughput" else 1.0
        return min(known, key=lambda s: sign * s.value(self.objective))

    @property
    def speedup_vs_best_single_tier(self) -> float | None:
        """How many times better than the best single tier; 1 if the plan is one.

        None if no single tier is feasible, or the figures are unknown. So it is for an
        objective of the user's own, whose ratios need not mean anything.
        """
        best = self.best_single_tier
        mine = self.figures.value(self.objective)
        if best is None or not math.isfinite(mine) or mine == 0 or self.objective == "custom":
            return None
        theirs = best.value(self.objective)
        if theirs == 0:
            return None
        return mine / theirs if self.objective == "throughput" else theirs / mine

    @property
    def is_split(self) -> bool:
        """Whether more than one tier has work."""
        return sum(stage.stop > stage.start for stage in self.figures.stages) > 1

    def __repr__(self) -> str:
        line: str = draw("plan_line", self)
        return line

    def __str__(self) -> str:
        text: str = draw("plan_text", self)
        return text

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        html: str = draw("plan_html", self)
        return html

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        """What rich prints."""
        yield from draw("plan_renderables", console, self)

    def records(self) -> list[dict[str, Any]]:
        """A row for each tier and link, in the order that a request passes them."""
        rows: list[dict[str, Any]] = []
        for at, stage in enumerate(self.figures.stages):
            rows.append({"kind": "tier", "name": stage.tier, **_row(asdict(stage), "tier", "machines")})
            for link in self.figures.links[at : at + 1]:
                name = f"{link.source} - {link.target}"
                rows.append({"kind": "link", "name": name, **_row(asdict(link), "source", "target", *_LISTS)})
        return rows

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-ready data; unknown figures are None."""
        figures = self.figures
        links = [_link_dict(link) for link in figures.links]
        data = {
            "schema_version": SCHEMA_VERSION,
            "objective": self.objective,
            "planner": self.planner,
            "optimality": self.optimality,
            "feasible": self.feasible,
            "violations": list(self.violations),
            "stages": [asdict(stage) for stage in figures.stages],
            "links": links,
            "latency_s": figures.latency_s,
            "cost_usd": figures.cost_usd,
            "throughput_per_s": figures.throughput_per_s,
            "energy_j": figures.energy_j,
            "ttft_s": figures.ttft_s,
            "tpot_s": figures.tpot_s,
            "ttft_overlapped_s": figures.ttft_overlapped_s,
            "check_s": figures.check_s,
            "single_tier": [asdict(single) for single in self.single_tier],
            "speedup_vs_best_single_tier": self.speedup_vs_best_single_tier,
            "pareto": [asdict(point) for point in self.pareto],
            "order": self.order,
            "accounting": self.accounting,
            "bindings": dict(self.bindings),
            "limits": dict(self.limits),
            "evaluated": self.evaluated,
            "notes": list(self.notes),
            "lower_bound": self.lower_bound,
            "gap": self.gap,
            "weights": None if self.weights is None else self.weights.to_dict(),
            "weighted": figures.weighted,
            "custom": figures.custom,
            "permutation": None if self.permutation is None else list(self.permutation),
            "cost_models": list(self.cost_models),
            "topology": self.topology,
            "model": None if self.model is None else asdict(self.model),
            "uncounted_ops": dict(self.uncounted_ops),
            "order_digest": self.order_digest,
            "node_order": None if self.node_order is None else list(self.node_order),
            "states": None if self.states is None else list(self.states),
            "trips": dict(self.trips),
            "assumed": dict(self.assumed),
            "unknowns": list(self.unknowns),
            "knows_enough": self.knows_enough,
            "pareto_complete": self.pareto_complete,
            "pareto_count": self.pareto_count,
        }
        cleaned: dict[str, Any] = _without_nan(data)
        return cleaned

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """A plan from what `to_dict` gave.

        Raises:
            PlanError: A key is missing or of another schema version.
        """
        if data.get("schema_version") != SCHEMA_VERSION:
            raise PlanError(
                f"plan of schema version {data.get('schema_version')!r}, expected {SCHEMA_VERSION}"
            )
        for key in NEEDED:
            if key not in data:
                raise PlanError(f"not a plan: it has no `{key}`", hint=_WRITE_ONE)
        # A file holds the figures beside the rest, to be read more easily.
        figures = {key: data[key] for key in _FIGURES if key in data}
        try:
            return _reader().validate_python({**data, "figures": figures})
        except ValidationError as error:
            fault = first_fault(error).replace("`figures.", "`", 1).replace("tuple", "list")
            raise PlanError(f"not a plan: {fault}", hint=_WRITE_ONE) from None
        except InputError as error:
            raise PlanError(f"not a plan: {error.message}", hint=_WRITE_ONE) from None


#: What is no figure of a link.
_LISTS = ("values", "coded")
_FIGURES = (
    *("stages", "links", "latency_s", "cost_usd", "throughput_per_s", "energy_j", "weighted", "custom"),
    *("ttft_s", "tpot_s", "ttft_overlapped_s", "check_s"),
)
#: What a plan's file must have; later releases wrote the other keys.
NEEDED = (
    *("schema_version", "objective", "planner", "optimality", "feasible", "violations", "stages", "links"),
    *("latency_s", "cost_usd", "throughput_per_s", "energy_j", "single_tier", "pareto", "order"),
    *("accounting", "bindings", "limits", "evaluated"),
)
_WRITE_ONE = "write one with `plan ... -o plan.json`"


@cache
def _reader() -> TypeAdapter[Plan]:
    """What reads plans, built when one is first read."""
    return TypeAdapter(Plan)


def load_plan(path: str | Path) -> Plan:
    """Reads a plan that `plan ... -o FILE` wrote.

    Raises:
        PlanError: The file cannot be read or is not a plan.
    """
    try:
        text = read_bounded(Path(path), regular=False)
    except (OSError, ValueError) as error:
        raise PlanError(f"cannot read plan `{path}`: {error}") from None
    return parse_plan(text, str(path))


def parse_plan(text: bytes, source: str) -> Plan:
    """A plan from the text of its file.

    Args:
        text: The file's content.
        source: Its name, for errors.

    Raises:
        PlanError: It is not a plan.
    """
    try:
        data = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise PlanError(f"cannot read plan `{source}`: {error}") from None
    if not isinstance(data, dict):
        raise PlanError(f"`{source}` is not a plan")
    return Plan.from_dict(data)


def _link_dict(link: Transfer) -> dict[str, Any]:
    data = asdict(link)
    return {"from": data.pop("source"), "to": data.pop("target"), **data, "values": list(link.values)}


def _row(data: dict[str, Any], *left_out: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in left_out}


def _without_nan(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_nan(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
