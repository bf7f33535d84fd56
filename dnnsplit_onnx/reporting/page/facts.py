"""What the page says, gathered as data: nothing here draws, nothing that draws computes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import DnnsplitError, PlanError
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.choosing import problem_of
from dnnsplit_onnx.planning.coding import along
from dnnsplit_onnx.planning.costs import on_links
from dnnsplit_onnx.planning.planners.pareto import pareto_front
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.planning.rivalry import rivals
from dnnsplit_onnx.planning.rivals import Rivals
from dnnsplit_onnx.planning.sensitivity import Sample, Sensitivity, bandwidth_sensitivity, samples
from dnnsplit_onnx.reporting.page.measured import Bench
from dnnsplit_onnx.reporting.page.proof import Proof, recorded_proof
from dnnsplit_onnx.slicing.manifest import Manifest
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.codes import RAW, base
from dnnsplit_onnx.work.cuts import Accounting
from dnnsplit_onnx.work.inspection import Inspection

# Bandwidths at which a curve of the sensitivity to a link is evaluated.
_SAMPLES = 64


@dataclass(frozen=True)
class LinkStudy:
    """How the best plan depends on one link.

    Attributes:
        found: The decisions.
        samples: The best figure, and the best single tier's, along the bandwidths.
    """

    found: Sensitivity
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Facts:
    """Everything that the page says.

    Attributes:
        manifest: What was cut, and its hashes.
        plan: What the slices were made for, with a Pareto front where one can be had.
        inspection: The model's work and cuts, in the plan's order, as the links see them.
        topology: The tiers; None if they are not known.
        links: A study of each link; empty if it cannot be made.
        bench: What `bench` measured, if it is given.
        proof: What `verify` found when the slices were made; None if that is not recorded.
        notes: What is missing from the page and why, each a sentence.
        problem: What the plan answers, to explore; None if nothing can be planned again.
        rivals: What could be done in place of this plan; None if that cannot be priced.
    """

    manifest: Manifest
    plan: Plan
    inspection: Inspection
    topology: Topology | None
    links: tuple[LinkStudy, ...]
    bench: Bench | None
    proof: Proof | None
    notes: tuple[str, ...]
    problem: Problem | None = None
    rivals: Rivals | None = None

    @property
    def model_name(self) -> str:
        """The model's file name."""
        return self.manifest.model.path.rpartition("/")[2]

    @property
    def cut_nbytes(self) -> NDArray[np.int64]:
        """Shape (n + 1,): bytes at each cut."""
        return self.inspection.cut_nbytes

    @property
    def coded_nbytes(self) -> dict[str, NDArray[np.int64]]:
        """The same for each code of the plan's links, by name: what is packed depends on the data."""
        codes = dict.fromkeys(base(link.code) for link in self.plan.figures.links)
        return {code: along(self.inspection.analysis, code) for code in codes if code != RAW}

    @property
    def stage_of(self) -> list[int]:
        """For each position, the index of the tier that runs the node."""
        stages = self.plan.figures.stages
        return [t for t, stage in enumerate(stages) for _ in range(stage.start, stage.stop)]


def gather(
    manifest: Manifest,
    plan: Plan,
    analysis: Analysis,
    topology: Topology | None = None,
    bench: Bench | None = None,
) -> Facts:
    """Gathers what the page says of a folder of slices.

    Args:
        manifest: Of the folder.
        plan: The manifest's plan.
        analysis: The whole model, in the order that the plan's positions count.
        topology: The tiers that the plan was made for.
        bench: What `bench --json` printed.

    Raises:
        PlanError: The plan is not of this model, or not of these slices.
    """
    notes = _held_against(manifest, plan, analysis)
    problem = None
    if topology is None:
        notes.append(
            "The tiers are not recorded in this manifest, so nothing can be planned again: "
            "pass --tiers T.toml, or split again"
        )
    else:
        try:
            problem = _problem(plan, analysis, topology)
        except DnnsplitError as error:
            notes.append(f"Nothing could be planned again: {error.message}")
    seen = analysis
    links: tuple[LinkStudy, ...] = ()
    if problem is not None and topology is not None:
        seen = on_links(analysis, topology)
        plan, links = _with_front(plan, problem), _studies(problem, notes)
    proof = recorded_proof(manifest, notes)
    inspection = Inspection(seen, _accounting(plan))
    others = None if problem is None else _rivals(problem, notes)
    return Facts(manifest, plan, inspection, topology, links, bench, proof, tuple(notes), problem, others)


def _rivals(problem: Problem, notes: list[str]) -> Rivals | None:
    """What could be done in place of a split, with the codes that the links allow."""
    assert problem.analysis is not None, "a plan is of a graph"
    try:
        return rivals(
            problem.analysis,
            problem.topology,
            objective=problem.objective,
            weights=problem.weights,
            codes=(),
        )
    except DnnsplitError as error:
        notes.append(f"What could be done in place of a split is left out: {error.message}")
        return None


def _accounting(plan: Plan) -> Accounting:
    """What the plan charges a cut.

    Raises:
        PlanError: It is nothing that is known.
    """
    for known in get_args(Accounting):
        if plan.accounting == known:
            return cast(Accounting, known)
    raise PlanError(f"the plan charges cuts by `{plan.accounting}`, which is not known here")


def _problem(plan: Plan, analysis: Analysis, topology: Topology) -> Problem:
    """The question that the plan answers.

    Raises:
        DnnsplitError: It cannot be put: a measured profile is elsewhere, say.
    """
    names = tuple(stage.tier for stage in plan.figures.stages)
    if topology.names != names:
        raise PlanError(f"the plan is for the tiers {', '.join(names)}, not {', '.join(topology.names)}")
    return problem_of(analysis, topology, plan.objective, _accounting(plan), plan.weights)


def _with_front(plan: Plan, problem: Problem) -> Plan:
    """The plan with a Pareto front: cuts given by hand come without one."""
    if plan.pareto:
        return plan
    front = pareto_front(problem)
    return replace(plan, pareto=front.points, pareto_complete=front.complete, pareto_count=front.count)


def _studies(problem: Problem, notes: list[str]) -> tuple[LinkStudy, ...]:
    found = []
    for link in range(len(problem.topology.links)):
        try:
            study = bandwidth_sensitivity(problem, link)
        except DnnsplitError as error:
            notes.append(f"Sensitivity to link {link} is left out: {error.message}")
            continue
        found.append(LinkStudy(study, samples(problem, study, _SAMPLES)))
    return tuple(found)


def _held_against(manifest: Manifest, plan: Plan, analysis: Analysis) -> list[str]:
    """What of the model is not as it was when the plan was made.

    Raises:
        PlanError: Its stages are not this model's nodes, or not the manifest's slices.
    """
    stages, size = plan.figures.stages, len(analysis.graph.nodes)
    bounds = [(0, 0), *((stage.start, stage.stop) for stage in stages), (size, size)]
    if any(one[1] != two[0] or two[0] > two[1] for one, two in pairwise(bounds)):
        raise PlanError(
            f"the plan in the manifest is not of this model, which has {size:,} nodes",
            hint="run `split` again",
        )
    tiers = [stage.tier for stage in stages]
    crossed = [(link.source, link.target, link.position) for link in plan.figures.links]
    expected = [(one.tier, two.tier, one.stop) for one, two in pairwise(stages)]
    if tiers != [record.tier for record in manifest.slices] or crossed != expected:
        raise PlanError("the plan in the manifest does not fit its slices", hint="run `split` again")
    below = analysis.flops_below
    if any(stage.flops != below[stage.stop] - below[stage.start] for stage in stages):
        return [
            "Work is counted otherwise now than when the plan was made, so curves and plan may differ; "
            "if `split` was given --trips or --sample-input, give them to `report` too"
        ]
    return []
