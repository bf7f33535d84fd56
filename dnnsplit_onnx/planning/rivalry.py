"""From a model and machines to the table of `planning.rivals`: one problem a row, priced as any plan is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dnnsplit_onnx.errors import DnnsplitError, InfeasibleError
from dnnsplit_onnx.machines.tiers_file import topology_of
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.accepting import Accept, accepted
from dnnsplit_onnx.planning.cascades import SmallModel, Upper, small_rows
from dnnsplit_onnx.planning.choosing import problem_of
from dnnsplit_onnx.planning.encodings import TENSOR, encodings
from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.objective import ObjectiveFunction
from dnnsplit_onnx.planning.planners import exact
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.planning.rivals import Kind, Rival, Rivals, priced
from dnnsplit_onnx.planning.unknowns import too_little
from dnnsplit_onnx.planning.weights import Weights
from dnnsplit_onnx.work.analysing import Source
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.codes import LOSSY, RAW
from dnnsplit_onnx.work.pictured import analysis_for


@dataclass(frozen=True)
class _Asked:
    """A model, and what is to be best."""

    analysis: Analysis
    objective: Objective | ObjectiveFunction
    weights: Weights | None

    def problem(self, topology: Topology) -> Problem:
        """The model's problem on a topology."""
        return problem_of(self.analysis, topology, self.objective, "live", self.weights)


def rivals(
    model: Source,
    topology: Topology | str | os.PathLike[str],
    *,
    objective: Objective | ObjectiveFunction = "latency",
    weights: Weights | Mapping[str, float] | None = None,
    codes: Sequence[str] | None = None,
    small: SmallModel | None = None,
    accuracy: float | None = None,
    bits_per_pixel: float = 2.0,
    bindings: Mapping[str, int] | None = None,
    accept: Accept | None = None,
) -> Rivals:
    """Prices a split and everything that a sensible engineer would do in its place.

    Args:
        model: An analysis, or what `analyse` takes.
        topology: Tiers, links and limits, or the file that has them.
        objective: What is to be best: a name, or a function of `Figures` to be minimised.
        weights: What the objective `weighted` is.
        codes: Codes for links that say nothing of them; None is all that lose something, unless a link
            says something.
        small: A smaller model, if there is one.
        accuracy: Of the model, if it is known.
        bits_per_pixel: What a JPEG of an input that is a picture takes.
        bindings: Numbers for symbolic dimensions.
        accept: Says what is wrong with the cuts and codes of a plan, or None; see `plan`.

    Raises:
        DnnsplitError: The model cannot be priced on these tiers at all.
    """
    topology = topology_of(topology)
    analysis = analysis_for(model, topology, bindings)
    if weights is not None and not isinstance(weights, Weights):
        weights = Weights.of(weights)
    asked = _Asked(analysis, objective, weights)
    lone = _of_one_machine(topology)
    plain = asked.problem(TENSOR.on(lone))
    uppers = [Upper(TENSOR, TENSOR.on(lone))]
    uppers += [Upper(one, one.on(lone)) for one in encodings(analysis, topology, bits_per_pixel)]
    rows = [*_singles(plain, topology), *_encoded(asked, uppers[1:])]
    if small is not None and topology.links:
        rows += small_rows(small, lone, asked.problem, uppers)
    rows += _splits(asked, topology, lone, codes, accept)
    if accuracy is not None:
        rows = [replace(row, accuracy=accuracy) if row.answers == "same" else row for row in rows]
    unknown = too_little(plain)
    path = str(analysis.graph.file.path)
    return Rivals(plain.objective, tuple(rows), weights, path, (unknown,) if unknown else ()).ranked


def _of_one_machine(topology: Topology) -> Topology:
    """The topology without codes, the first machine of tier 0 alone."""
    links = tuple(link.changed(codes=None) for link in topology.links)
    low, *others = topology.tiers
    if low.machines:
        first = low.machines[0]
        speed = {key: getattr(first, key) for key in ("gflops", "memory_gb_per_s", "overhead_us", "profile")}
        low = low.changed(machines=(), lan=None, **speed)
    return topology.changed(tiers=(low, *others), links=links)


def _singles(problem: Problem, topology: Topology) -> Iterator[Rival]:
    """Everything on one tier, for each."""
    machines = topology.tiers[0].machines
    for tier, cuts in zip(topology.tiers, problem.single_tier, strict=True):
        assumes = (
            (f"machine `{machines[0].name}` works alone",) if len(machines) > 1 and cuts[:1] != (0,) else ()
        )
        yield priced(f"all on {tier.name}", "single", problem, cuts, assumes=assumes)


def _encoded(asked: _Asked, uppers: Sequence[Upper]) -> Iterator[Rival]:
    """Everything on the best upper tier, the input sent smaller."""
    for upper in uppers:
        problem = asked.problem(upper.topology)
        if not problem.topology.links:
            return
        tier, cuts = upper.best(problem)
        sent = upper.encoding
        name, said = f"{sent.name}, all on {tier}", (sent.assumes,)
        yield priced(name, "input", problem, cuts, answers=sent.answers, assumes=said)


def _splits(
    asked: _Asked, topology: Topology, lone: Topology, codes: Sequence[str] | None, accept: Accept | None
) -> Iterator[Rival]:
    """Rows shared among machines, the best split, and what codes make of inputs and splits."""
    if len(topology.tiers[0].machines) > 1:
        raw = tuple(link.changed(codes=None) for link in topology.links)
        name = f"rows shared in {topology.tiers[0].name}"
        yield from _planned([(name, "tiles")], asked, topology.changed(links=raw))
    if not topology.links:
        return
    yield from _planned([("the best split", "split")], asked, lone)
    own = any(link.codes for link in topology.links)
    if codes is None:
        codes = () if own else LOSSY
    if not codes and not own:
        return
    allowed = lone.changed(links=topology.links).with_codes(codes)
    measure = "--samples X.npz with --tolerance or --agreement"
    assumes = (f"what codes do to the answers was not measured: {measure}",) if accept is None else ()
    wanted: list[tuple[str, Kind]] = [("input in a code", "input"), ("the best split, with codes", "split")]
    yield from _planned(wanted, asked, allowed, accept, answers="close", assumes=assumes)


def _planned(
    wanted: Sequence[tuple[str, Kind]],
    asked: _Asked,
    topology: Topology,
    accept: Accept | None = None,
    **about: Any,
) -> Iterator[Rival]:
    """The best plans of a topology as rivals, by name and kind; that there is none is a rival as well."""
    try:
        problem = asked.problem(topology)
        free = _best(problem, accept)
    except DnnsplitError as error:
        name, kind = wanted[-1]
        yield Rival(name, kind, reason=error.message, **about)
        return
    for name, kind in wanted:
        solution, said = free, name
        if kind == "split" and not _is_split(free, problem):
            try:
                solution = _best_split(problem, accept)
            except DnnsplitError as error:
                yield Rival(name, kind, reason=error.message, **about)
                continue
        if kind == "input":
            if _is_split(free, problem) or not any(code != RAW for code in free.codes):
                continue
            said = f"{name}, all on one tier"
        planned = problem.in_order(solution.order).with_rows(solution.rows)
        yield priced(said, kind, planned, solution.cuts, solution.codes, **about)


def _best(problem: Problem, accept: Accept | None) -> Solution:
    if accept is not None and problem.costs.codes:
        return accepted(problem, accept)
    return exact.plan(problem)


def _best_split(problem: Problem, accept: Accept | None) -> Solution:
    """The best plan in which several tiers have nodes, though a single tier is better.

    Raises:
        InfeasibleError: There is none within the limits.
    """
    found: list[Solution] = []
    shape = (len(problem.topology.links), problem.costs.size + 1)
    for link in range(shape[0]):
        allowed = np.ones(shape, dtype=np.bool_)
        allowed[link, [0, -1]] = False
        try:
            found.append(_best(replace(problem, allowed=allowed), accept))
        except InfeasibleError:
            continue
    if not found:
        raise InfeasibleError("no split keeps to the limits and rules")
    first, *others = found
    for other in others:
        mine, theirs = (problem.figures(one.cuts, one.codes) for one in (other, first))
        if problem.is_better(mine, theirs):
            first = other
    return first


def _is_split(solution: Solution, problem: Problem) -> bool:
    return any(0 < cut < problem.costs.size for cut in solution.cuts)
