"""Published planners: each finds what its paper says it finds, and no more."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from dnnsplit_onnx.errors import DnnsplitError, InfeasibleError, InputError, MissingExtraError, TopologyError
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.planning.choosing import plan_of, problem_of
from dnnsplit_onnx.planning.costs import CostTable
from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.fitting import analysis_of
from dnnsplit_onnx.planning.planners import PLANNERS, Problem, Solution, get_planner
from dnnsplit_onnx.planning.planners.published import dads as dads_module
from dnnsplit_onnx.planning.planners.published import decc as decc_module
from tests.dags import closed_sets, live_nbytes, random_workload
from tests.strategies import ALL_OBJECTIVES, random_problem

exact, exhaustive = get_planner("exact"), get_planner("exhaustive")
PUBLISHED = ("neurosurgeon", "dads", "dnn-surgery", "decc", "cost-aware", "pso-ga", "liu", "ipsga", "dina")
TWO_TIERS = {
    "neurosurgeon": ("latency", "energy"),
    "dads": ("latency", "throughput"),
    "dnn-surgery": ("latency", "throughput"),
    "decc": ("latency", "throughput"),
    "cost-aware": ("latency", "cost", "weighted"),
    "ddpqn": ("latency", "cost", "energy", "weighted"),
    "liu": ("latency",),
    "ipsga": ("latency",),
    "dina": ("latency",),
}


def cases(objective: str, count: int, tiers: tuple[int, ...] = (2, 3, 4), *, limited: bool = False):
    for seed in range(count):
        rng = np.random.default_rng([seed, ALL_OBJECTIVES.index(objective), limited])
        problem = random_problem(rng, int(rng.choice(tiers)), objective, limited=limited)
        if problem.open.any(axis=1).all():
            yield problem


def pair_cuts(problem: Problem) -> list[tuple[int, ...]]:
    """Every plan that gives work to tier 0 and one tier above, where it may be cut."""
    size, links = problem.costs.size, len(problem.topology.links)
    plans = [
        (at,) * upper + (size,) * (links - upper) for upper in range(1, links + 1) for at in range(size + 1)
    ]
    return [cuts for cuts in plans if all(problem.open[t, cut] for t, cut in enumerate(cuts))]


def value(problem: Problem, cuts: tuple[int, ...], objective: Objective | None = None) -> float:
    return problem.figures(cuts).value(objective or problem.objective)


def best_of(problem: Problem, plans: list[tuple[int, ...]]) -> float:
    values = [value(problem, cuts) for cuts in plans]
    return max(values) if problem.objective == "throughput" else min(values)


@pytest.mark.parametrize("planner", PUBLISHED)
@pytest.mark.parametrize("objective", ALL_OBJECTIVES)
def test_no_planner_beats_exact_nor_invents_a_plan(planner: str, objective: str) -> None:
    found = 0
    for problem in cases(objective, 40, (1, 2, 3, 5), limited=True):
        try:
            best = value(problem, exact(problem).cuts)
            cuts = get_planner(planner)(problem).cuts
        except DnnsplitError:
            continue
        figures = problem.figures(cuts)
        if problem.violations(figures):
            continue
        found += 1
        mine = figures.value(problem.objective)
        assert mine <= best if objective == "throughput" else mine >= best
    assert found or objective not in TWO_TIERS.get(planner, ALL_OBJECTIVES)


@pytest.mark.parametrize(("planner", "known"), TWO_TIERS.items())
def test_an_objective_that_a_paper_does_not_have_is_refused(planner: str, known: tuple[str, ...]) -> None:
    for objective in set(ALL_OBJECTIVES) - set(known):
        problem = next(iter(cases(objective, 9)))
        with pytest.raises(InputError, match=f"`{planner}` chooses by .*, as published, not by {objective}"):
            get_planner(planner)(problem)


@pytest.mark.parametrize("planner", ["neurosurgeon", "dnn-surgery", "cost-aware"])
def test_the_best_single_cut_of_tier_0_and_another(planner: str) -> None:
    for problem in cases("latency", 60):
        cuts = get_planner(planner)(problem).cuts
        assert value(problem, cuts) == pytest.approx(best_of(problem, pair_cuts(problem)), rel=1e-12)


def test_neurosurgeon_minimises_the_energy_of_the_device() -> None:
    differs = 0
    for problem in cases("energy", 60, (2, 3)):
        tier, link = problem.topology.tiers[0], problem.topology.links[0]
        if tier.watts is None or link.watts is None:
            continue

        def device(cuts: tuple[int, ...], problem: Problem = problem) -> float:
            figures = problem.figures(cuts)
            return (figures.stages[0].energy_j or 0.0) + (figures.links[0].energy_j or 0.0)

        cuts = get_planner("neurosurgeon")(problem).cuts
        least = min(device(other) for other in pair_cuts(problem))
        assert device(cuts) == pytest.approx(least, rel=1e-12)
        try:
            differs += value(problem, cuts) > value(problem, exact(problem).cuts)
        except TopologyError:
            continue
    assert differs  # the energy of all tiers is another matter


def test_neurosurgeon_needs_the_watts_of_the_device() -> None:
    problem = next(iter(cases("energy", 9)))
    tiers = tuple(tier.model_copy(update={"watts": None}) for tier in problem.topology.tiers)
    with pytest.raises(TopologyError, match="tier `tier0` has no `watts`"):
        get_planner("neurosurgeon")(
            replace(problem, topology=problem.topology.model_copy(update={"tiers": tiers}))
        )


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_dnn_surgery_keeps_limits_where_one_cut_can(objective: str) -> None:
    kept = broken = 0
    for problem in cases(objective, 120, limited=True):
        plans = pair_cuts(problem)
        if not plans:
            with pytest.raises(InfeasibleError, match="may cut nowhere"):
                get_planner("dnn-surgery")(problem)
            continue
        good = [cuts for cuts in plans if not problem.violations(problem.figures(cuts))]
        solution = get_planner("dnn-surgery")(problem)
        assert value(problem, solution.cuts) == pytest.approx(best_of(problem, good or plans), rel=1e-12)
        assert bool(solution.notes) is not bool(good)
        kept, broken = kept + bool(good), broken + (not good)
    assert kept
    assert broken


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_decc_is_exhaustive_up_to_three_parts(objective: str) -> None:
    for problem in cases(objective, 60, (2, 3)):
        found = value(problem, get_planner("decc")(problem).cuts)
        assert found == pytest.approx(value(problem, exhaustive(problem).cuts), rel=1e-12)
    for problem in cases(objective, 30, (4, 5)):
        size, links = problem.costs.size, len(problem.topology.links)
        plans = [
            (first,) * middle + (second,) * (top - middle) + (size,) * (links - top)
            for middle, top in combinations(range(1, links + 1), 2)
            for first in range(size + 1)
            for second in range(first, size + 1)
        ]
        plans = [cuts for cuts in plans if all(problem.open[t, cut] for t, cut in enumerate(cuts))]
        found = value(problem, get_planner("decc")(problem).cuts)
        assert found == pytest.approx(best_of(problem, plans), rel=1e-12)


def test_decc_refuses_what_it_could_not_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decc_module, "MOST_NODES", 0)
    with pytest.raises(InputError, match="tries every pair of positions"):
        get_planner("decc")(next(p for p in cases("latency", 20, (3,)) if p.costs.size))


@pytest.mark.parametrize("objective", ["cost", "weighted"])
def test_cost_aware_takes_links_to_be_free(objective: str) -> None:
    noted = 0
    for problem in cases(objective, 80):
        weights = problem.weights
        if weights is not None and weights.energy:
            with pytest.raises(InputError, match="not energy"):
                get_planner("cost-aware")(problem)
            continue

        def believed(cuts: tuple[int, ...], problem: Problem = problem) -> float:
            figures = problem.figures(cuts)
            rent = sum(stage.cost_usd for stage in figures.stages)
            if problem.weights is None:
                return rent
            return problem.weights.latency * figures.latency_s + problem.weights.cost * rent

        solution = get_planner("cost-aware")(problem)
        least = min(believed(cuts) for cuts in pair_cuts(problem))
        assert believed(solution.cuts) == pytest.approx(least, rel=1e-9, abs=1e-15)
        noted += bool(solution.notes)
    assert noted


def test_pso_ga_gives_one_answer_and_often_the_best() -> None:
    best, total = 0, 0
    for objective in ("cost", "throughput"):
        for problem in cases(objective, 12, (2, 3), limited=True):
            try:
                optimum = value(problem, exact(problem).cuts)
            except DnnsplitError:
                continue
            found = get_planner("pso-ga")(problem)
            assert found == get_planner("pso-ga")(problem)
            total += 1
            best += value(problem, found.cuts) == pytest.approx(optimum, rel=1e-9)
            assert not problem.violations(problem.figures(found.cuts))
    assert best >= 0.9 * total > 0


# dads


def dag_problem(seed: int, objective: Objective, tiers: int = 2) -> Problem:
    """A problem of a random DAG; a few FLOPs and a few bytes weigh about the same."""
    rng = np.random.default_rng([seed, 77])
    analysis = random_workload(rng, int(rng.integers(1, 9)))
    speeds = np.sort(rng.choice([0.5, 1.0, 2.0, 10.0], tiers)) / 1e3
    topology = Topology(
        tiers=tuple(Tier(name=f"t{t}", gflops=float(speed)) for t, speed in enumerate(speeds)),
        links=tuple(Link(bandwidth_mbps=float(rng.choice([1.0, 8.0]))) for _ in range(tiers - 1)),
    )
    return problem_of(analysis, topology, objective)


def stages(problem: Problem, below: frozenset[int]) -> tuple[float, float, float]:
    """T_e, T_t and T_c of two tiers, from the sets themselves."""
    assert problem.analysis is not None
    flops = problem.analysis.flops
    low, high = (sum(int(flops[at]) for at in nodes) for nodes in (below, set(range(len(flops))) - below))
    sent = 8 * live_nbytes(problem.analysis, below) / (problem.topology.links[0].bandwidth_mbps * 1e6)
    edge, cloud = (tier.gflops or 0.0 for tier in problem.topology.tiers)
    return low / (edge * 1e9), sent, high / (cloud * 1e9)


def judged(problem: Problem, solution: Solution) -> float:
    return problem.in_order(solution.order).figures(solution.cuts).value(problem.objective)


def test_dsl_is_the_best_of_all_closed_sets() -> None:
    beyond = 0
    for seed in range(80):
        problem = dag_problem(seed, "latency")
        assert problem.analysis is not None
        least = min(sum(stages(problem, below)) for below in closed_sets(problem.analysis))
        solution = get_planner("dads")(problem)
        assert judged(problem, solution) == pytest.approx(least, rel=1e-9)
        beyond += solution.order is not None
    assert beyond  # some cut is no prefix, and priced as it is


def test_dsh_is_within_three_times_the_optimum() -> None:
    ratios = []
    for seed in range(40):
        problem = dag_problem(seed, "throughput")
        assert problem.analysis is not None
        least = min(max(stages(problem, below)) for below in closed_sets(problem.analysis))
        slowest = 1 / judged(problem, get_planner("dads")(problem))
        if least:
            ratios.append(slowest / least)
    assert min(ratios) >= 1 - 1e-9
    assert max(ratios) <= 3 + 1e-9
    assert np.median(ratios) < 1.1


def test_dads_takes_the_best_pair_of_tiers() -> None:
    for seed in range(30):
        problem = dag_problem(seed, "latency", tiers=3)
        line = problem.topology
        assert problem.analysis is not None
        options = []
        for upper in (1, 2):
            links = line.links[:upper]
            rate = 1 / sum(1 / link.bandwidth_mbps for link in links)
            pair = Topology(tiers=(line.tiers[0], line.tiers[upper]), links=(Link(bandwidth_mbps=rate),))
            alone = problem_of(problem.analysis, pair, "latency")
            options.append(min(sum(stages(alone, below)) for below in closed_sets(problem.analysis)))
        assert judged(problem, get_planner("dads")(problem)) == pytest.approx(min(options), rel=1e-9)


def test_a_plan_of_sets_is_whole() -> None:
    """What a plan says of sets that are no prefixes is what the graph says of them."""
    seen = 0
    for seed in range(80):
        problem = dag_problem(seed, "latency")
        made = plan_of(problem, "dads", pareto=False)
        assert made.gap == 0  # without delays the minimum cut is the optimum of the DAG
        assert problem.analysis is not None
        ordered = analysis_of(made, problem.analysis)
        assert made.order == ordered.order
        if made.permutation is None:
            assert ordered is problem.analysis
            continue
        seen += 1
        assert made.order == "custom"
        below = frozenset(made.permutation[: made.cuts[0]])
        assert made.figures.links[0].nbytes == live_nbytes(problem.analysis, below)
        assert made.figures.stages[0].flops == sum(int(problem.analysis.flops[at]) for at in below)
        names = [node.name for node in problem.analysis.graph.nodes]
        assert [node.name for node in ordered.graph.nodes] == [names[at] for at in made.permutation]
    assert seen


def test_another_order_has_the_same_seconds() -> None:
    problem = dag_problem(5, "latency")
    same = problem.in_order(range(problem.costs.size))
    assert np.array_equal(same.costs.seconds_below, problem.costs.seconds_below)
    assert np.array_equal(same.costs.up_nbytes, problem.costs.up_nbytes)
    measured = replace(problem, costs=replace(problem.costs, seconds_below=problem.costs.seconds_below**1.5))
    assert measured.in_order(range(problem.costs.size)).costs.seconds_below == pytest.approx(
        measured.costs.seconds_below
    )
    with pytest.raises(ValueError, match="only a problem with a graph"):
        next(iter(cases("latency", 9))).in_order([0])


def test_dads_on_a_chain_without_a_graph() -> None:
    for problem in cases("latency", 40, (2,)):
        free = [link.model_copy(update={"delay_ms": 0.0}) for link in problem.topology.links]
        limits = problem.topology.limits.model_copy(update={"return_output": False})
        topology = problem.topology.model_copy(update={"links": tuple(free), "limits": limits})
        plain = replace(problem, topology=topology)
        found = get_planner("dads")(plain)
        assert found.order is None
        assert value(plain, found.cuts) == pytest.approx(value(plain, exact(plain).cuts), rel=1e-9)


def test_dads_refuses_rules_and_graphs_that_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = dag_problem(1, "latency")
    closed = np.ones((1, problem.costs.size + 1), dtype=np.bool_)
    with pytest.raises(InputError, match="no rules on nodes"):
        get_planner("dads")(replace(problem, allowed=closed))
    monkeypatch.setattr(dads_module, "MOST", 0)
    with pytest.raises(InputError, match="minimum cuts of up to 0"):
        get_planner("dads")(problem)


def test_dads_where_every_size_is_unknown() -> None:
    topology = Topology(
        tiers=(Tier(name="a", gflops=1.0), Tier(name="b", gflops=9.0)), links=(Link(bandwidth_mbps=1.0),)
    )
    unknown = np.array([-1, -1, 0])
    costs = CostTable(np.array([[0.0, 1, 2], [0, 0.1, 0.2]]), np.array([0, 1, 2]), unknown, np.zeros(3, int))
    assert get_planner("dads")(Problem(costs, topology, "latency")).cuts == (2,)


# ddpqn


def test_ddpqn_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError) as error:
        get_planner("ddpqn")(next(p for p in cases("latency", 20) if p.costs.size))
    assert error.value.hint == "pip install 'dnnsplit-onnx[ddpqn]'"


# It learns twice for each of two problems: one objective always, all of them with --all.
@pytest.mark.parametrize(
    "objectives",
    [("latency",), pytest.param(("latency", "cost", "weighted"), marks=pytest.mark.slow)],
    ids=len,
)
def test_ddpqn_learns_to_place_layers(objectives: tuple[str, ...]) -> None:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    before = torch.random.get_rng_state()
    good = total = 0
    for objective in objectives:
        for problem in cases(objective, 2, (2, 3)):
            if not problem.costs.size:
                continue
            found = get_planner("ddpqn")(problem)
            assert found == get_planner("ddpqn")(problem)
            mine, best = (value(problem, cuts) for cuts in (found.cuts, exact(problem).cuts))
            assert mine >= best
            total += 1
            good += mine <= 1.05 * best
    assert good >= 0.75 * total > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_planner_takes_the_smallest_problems() -> None:
    for tiers, size in ((1, 0), (1, 3), (2, 0)):
        topology = Topology(
            tiers=tuple(Tier(name=f"t{t}", gflops=1.0, watts=1.0) for t in range(tiers)),
            links=tuple(Link(bandwidth_mbps=1.0, watts=1.0) for _ in range(tiers - 1)),
        )
        below = np.arange(size + 1)
        costs = CostTable(
            np.tile(below / 1e9, (tiers, 1)), below, np.zeros(size + 1, int), np.zeros(size + 1, int)
        )
        for name, planner in PLANNERS.items():
            if name == "coedge":  # it shares rows among the machines of a tier, and here each is one
                continue
            objective: Objective = "latency"
            solution = planner(Problem(costs, topology, objective))
            figures = Problem(costs, topology, objective).figures(solution.cuts)
            assert math.isfinite(figures.latency_s), name
