"""Cuts and codes together: the best of them is what trying every combination finds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from dnnsplit_onnx.errors import InfeasibleError, PlanError, TopologyError
from dnnsplit_onnx.planning.coding import CodeCosts
from dnnsplit_onnx.planning.planners import exact, exhaustive
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.work.codes import LOSSY, PACKED, RAW, packed
from dnnsplit_onnx.work.cuts import UNKNOWN
from tests.strategies import ALL_OBJECTIVES, random_problem, with_random_limits


def with_random_codes(rng: np.random.Generator, problem: Problem) -> Problem:
    """The problem with codes on some links, which apply at some cuts and cost a little or much."""
    size, tiers = problem.costs.size, len(problem.topology.tiers)
    codes = {}
    for code in LOSSY[: int(rng.integers(1, 4))]:
        up = problem.costs.up_nbytes
        shrunk = np.where(up == UNKNOWN, UNKNOWN, up // int(rng.integers(2, 9)))
        applies = (rng.random(size + 1) < 0.9) & (up != UNKNOWN)
        applies[-1] = False
        scale = float(rng.choice([0.0, 0.0, 1e-7, 1e-3]))
        seconds = rng.integers(0, 4, (2, tiers, size + 1)) * scale
        seconds[:, :, -1] = 0
        codes[code] = CodeCosts(shrunk, applies, seconds[0], seconds[1])
    names = [*codes]
    if rng.random() < 0.5:  # some of them, and raw, may be packed too
        names.append(PACKED)
        for code in (RAW, *list(codes)):
            if rng.random() < 0.7:
                codes[packed(code)] = _packed(rng, problem, codes.get(code))
    links = [
        link.model_copy(update={"codes": tuple(rng.permutation(names)[: rng.integers(0, 5)].tolist())})
        for link in problem.topology.links
    ]
    topology = problem.topology.model_copy(update={"links": tuple(links)})
    return replace(problem, topology=topology, costs=replace(problem.costs, codes=codes))


def _packed(rng: np.random.Generator, problem: Problem, one: CodeCosts | None) -> CodeCosts:
    """A code, or raw, with its tensors packed: smaller mostly, and a little dearer."""
    up = problem.costs.up_nbytes if one is None else one.nbytes
    applies = (up != UNKNOWN) & (rng.random(len(up)) < 0.8)
    applies[-1] = False
    if one is not None:
        applies &= one.applies
    shrunk = np.where(up == UNKNOWN, UNKNOWN, up * int(rng.integers(3, 11)) // 10)
    seconds = rng.integers(0, 3, (len(problem.topology.tiers), len(up))) * float(rng.choice([0.0, 1e-6]))
    seconds[:, -1] = 0
    before = 0.0 if one is None else one.encode_s
    return CodeCosts(shrunk, applies, before + seconds, seconds + (0.0 if one is None else one.decode_s))


def check(seed: int) -> bool:
    """Whether there is a plan; it is the best there is."""
    rng = np.random.default_rng(seed)
    tiers = int(rng.choice([1, 2, 2, 3, 3, 4]))
    objective = str(rng.choice(ALL_OBJECTIVES))
    problem = with_random_codes(rng, random_problem(rng, tiers, objective, limited=False))
    if rng.random() < 0.5:
        problem = with_random_limits(rng, problem)
    try:
        found = exhaustive.plan(problem)
    except InfeasibleError:
        with pytest.raises((InfeasibleError, TopologyError)):
            exact.plan(problem)
        return False
    want = problem.figures(found.cuts, found.codes)
    mine = exact.plan(problem)
    figures = problem.figures(mine.cuts, mine.codes)
    assert not problem.violations(figures)
    assert figures.value(problem.objective) == pytest.approx(
        want.value(problem.objective), rel=1e-9, abs=0 if not math.isinf(want.latency_s) else None
    ), (seed, tiers, problem.objective, mine, found)
    return True


@pytest.mark.parametrize("block", range(4))
def test_equals_exhaustive(block: int) -> None:
    assert sum(check(seed) for seed in range(block * 40, block * 40 + 40)) > 10


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_equals_exhaustive_in_many_cases(block: int) -> None:
    assert sum(check(1000 + seed) for seed in range(block * 100, block * 100 + 100)) > 20


def test_what_no_code_can_be() -> None:
    rng = np.random.default_rng(5)
    problem = with_random_codes(rng, random_problem(rng, 3, "latency", limited=False))
    size = problem.costs.size
    with pytest.raises(PlanError, match="nothing can cross in it"):
        problem.figures((size, size), ("fp16", "fp16"))
    at = int(np.flatnonzero(problem.costs.codes["fp16"].applies)[0])
    with pytest.raises(PlanError, match="two links are cut at"):
        problem.figures((at, at), ("fp16", "raw"))
