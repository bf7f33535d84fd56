"""Rules on nodes, kept over the whole DAG: against every chain of downward-closed sets."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest
from onnx.parser import parse_model

from dnnsplit_onnx.errors import InfeasibleError
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.planning.choosing import plan_of, problem_of
from dnnsplit_onnx.planning.planners.exact import along_order
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.work.analysis import Analysis
from tests.dags import analysis_of, closed_sets
from tests.planning.planners.test_dag import figure, random_dag_problem

Sets = tuple[frozenset[int], ...]


def with_random_rules(seed: int, problem: Problem, analysis: Analysis) -> Problem:
    """Some nodes pinned to some tiers, and some inputs kept on one."""
    rng = np.random.default_rng([seed, 17])
    names = [node.name for node in analysis.graph.nodes]
    tiers = list(problem.topology.tiers)
    for name in rng.permutation(names)[: int(rng.integers(0, 3))].tolist():
        t = int(rng.integers(0, len(tiers)))
        tiers[t] = tiers[t].changed(pin=(*tiers[t].pin, name))
    until = None
    if rng.random() < 0.4:
        kept = {state.input for state in analysis.graph.states}
        inputs = [name for name in analysis.graph.inputs if name not in kept]
        t = int(rng.integers(0, len(tiers)))
        tiers[t] = tiers[t].changed(private_inputs=inputs[: int(rng.integers(0, 3))])
        until = str(rng.choice(names)) if rng.random() < 0.7 else None
    topology = problem.topology.changed(tiers=tiers).with_limits(private_until=until)
    return problem_of(analysis, topology, problem.objective)


def keeps(chain: Sets, problem: Problem, analysis: Analysis) -> bool:
    """Whether sets keep pins and private inputs, as the rules read."""
    graph, topology = analysis.graph, problem.topology
    place = {node.name: at for at, node in enumerate(graph.nodes)}
    everything = frozenset(range(len(graph.nodes)))
    rows = list(zip(topology.tiers, (frozenset(), *chain), (*chain, everything), strict=True))
    if any(place[name] not in above - below for tier, below, above in rows for name in tier.pin):
        return False
    until = topology.limits.private_until
    for tier, _, above in rows:
        bare = set(tier.private_inputs)
        states_of = {state.output: state.input for state in graph.states}
        for _ in graph.nodes:  # what states carry over comes round again
            for at, node in enumerate(graph.nodes):
                if not bare.isdisjoint(node.inputs) and at != (None if until is None else place[until]):
                    bare |= set(node.outputs)
            bare |= {states_of[value] for value in bare if value in states_of}
        if any(not bare.isdisjoint(graph.nodes[at].inputs) for at in everything - above):
            return False
    return True


@pytest.mark.parametrize("measure", ["latency", "cost", "energy"])
def test_is_the_best_of_all_sets_that_keep_the_rules(measure: str) -> None:
    refused = 0
    for seed in range(60):
        problem, analysis = random_dag_problem(seed, measure)
        problem = with_random_rules(seed, problem, analysis)
        closed = sorted(closed_sets(analysis), key=len)
        chains = [
            chain
            for chain in combinations_with_replacement(closed, len(problem.topology.links))
            if all(low <= high for low, high in pairwise(chain)) and keeps(chain, problem, analysis)
        ]
        if not chains:
            refused += 1
            with pytest.raises(InfeasibleError):
                plan_of(problem, pareto=False)
            continue
        best = min(figure(chain, analysis, problem.topology, measure) for chain in chains)
        found = plan_of(problem, pareto=False)
        assert found.feasible
        assert found.optimality == "dag"
        assert found.figures.value(problem.objective) == pytest.approx(best, rel=1e-9)
    assert refused


def two_towers(rng: np.random.Generator) -> Analysis:
    """Two chains of nodes, each on an input of its own, joined at the end."""
    text, sizes, lines = "", {}, []
    for tower in ("image", "text"):
        value = tower
        for at in range(int(rng.integers(2, 8))):
            sizes[value] = int(rng.integers(1, 2000))
            lines.append(f"[{tower}{at}] {tower}_{at} = tests.Mystery({value})")
            value = f"{tower}_{at}"
        sizes[value] = int(rng.integers(1, 50))
        text += f", {value}"
    lines.append(f"[join] out = tests.Mystery({text[2:]})")
    infos = ", ".join(f"uint8[{sizes[name]}] {name}" for name in ("image", "text"))
    inner = ", ".join(f"uint8[{n}] {name}" for name, n in sizes.items() if name not in ("image", "text"))
    model = parse_model(
        f'<ir_version: 10, opset_import: ["" : 21, "tests" : 1]> '
        f"m ({infos}) => (uint8[4] out) <{inner}> {{ {' '.join(lines)} }}"
    )
    return analysis_of(model, [int(rng.integers(1, 10**6)) for _ in lines])


def test_towers_pinned_to_different_tiers() -> None:
    """Whichever tower the order puts first, the other may be the one that must run below."""
    refused = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        analysis = two_towers(rng)
        names = [node.name for node in analysis.graph.nodes]
        low, high = rng.permutation(["image", "text"]).tolist()
        pinned = [[name for name in names if name.startswith(tower)] for tower in (low, high)]
        machines = Topology(
            tiers=[
                Tier("edge", gflops=0.01, pin=(pinned[0][-1],)),
                Tier("cloud", gflops=1.0, pin=(pinned[1][0],)),
            ],
            links=[Link(bandwidth_mbps=1, delay_ms=1)],
        )
        problem = problem_of(analysis, machines)
        found = plan_of(problem, pareto=False)
        assert (found.feasible, found.optimality) == (True, "dag")
        try:
            along_order(problem)
        except InfeasibleError:
            refused += 1
    assert refused > 10  # an order alone would have refused what can be done


def test_limits_are_searched_along_several_orders() -> None:
    """A budget that the plan at hand meets exactly, and pins that one order cannot keep."""
    better = 0
    for seed in range(60):
        problem, analysis = random_dag_problem(seed, "latency")
        problem = with_random_rules(seed, problem, analysis)
        try:
            cheapest = plan_of(problem.with_objective("cost"), pareto=False)
        except InfeasibleError:
            continue
        topology = problem.topology.with_limits(budget_usd=cheapest.figures.cost_usd)
        limited = replace(problem, topology=topology)
        found = plan_of(limited, pareto=False)
        assert found.figures.cost_usd <= cheapest.figures.cost_usd
        if found.lower_bound is not None:
            assert found.lower_bound <= found.figures.latency_s * (1 + 1e-9)
        try:
            own = limited.figures(along_order(limited).cuts)
        except InfeasibleError:
            better += 1
        else:
            assert found.figures.latency_s <= own.latency_s * (1 + 1e-12)
    assert better


def test_a_refusal_says_what_was_searched() -> None:
    problem, analysis = random_dag_problem(2, "latency")
    tiers = tuple(tier.changed(memory_gb=1e-12) for tier in problem.topology.tiers)
    problem = problem_of(analysis, problem.topology.changed(tiers=tiers), "latency")
    with pytest.raises(InfeasibleError) as error:
        plan_of(problem, pareto=False)
    assert "no plan fits the memory of the tiers" in error.value.message
    assert error.value.context is not None
    assert "along the order" in error.value.context or error.value.context.startswith("along")


def test_with_a_rate_no_chain_of_sets_is_better_than_the_bound() -> None:
    """Waiting is no sum over nodes: what tangents prove holds for every chain of sets."""
    proven = 0
    for seed in range(40):
        problem, analysis = random_dag_problem(seed, "latency")
        pace = problem.figures(along_order(problem.with_objective("throughput")).cuts).throughput_per_s
        if not 0 < pace < 1e12 or not problem.topology.links:
            continue
        topology = problem.topology.with_workload(requests_per_s=0.6 * pace)
        rated = problem_of(analysis, topology, "latency")
        found = plan_of(rated, pareto=False)
        closed = sorted(closed_sets(analysis), key=len)
        chains = [
            chain
            for chain in combinations_with_replacement(closed, len(topology.links))
            if all(low <= high for low, high in pairwise(chain))
        ]
        values = []
        for chain in chains:
            other = Solution.of_sets(chain, len(analysis.graph.nodes), 1)
            values.append(rated.in_order(other.order).figures(other.cuts).latency_s)
        assert found.lower_bound is not None
        assert found.lower_bound <= min(values) * (1 + 1e-9)
        if found.optimality == "dag":
            proven += 1
            assert found.figures.latency_s == pytest.approx(min(values), rel=1e-9)
    assert proven


def test_no_set_that_parts_a_state_is_the_best_for_throughput() -> None:
    """The order has the node that makes the state first; other sets may have its readers alone."""
    start, analysis = random_dag_problem(3528, "latency")
    assert analysis.graph.states
    topology = start.topology.with_workload(clients=3)
    found = plan_of(problem_of(analysis, topology, "throughput"), pareto=False)
    assert found.cuts == (0,)
    assert found.figures.throughput_per_s == pytest.approx(3e5)


def test_throughput_is_the_best_of_all_chains_of_sets() -> None:
    beyond = 0
    for seed in range(60):
        problem, analysis = random_dag_problem(seed, "latency")
        problem = with_random_rules(seed, problem, analysis).with_objective("throughput")
        closed = sorted(closed_sets(analysis), key=len)
        values = []
        for chain in combinations_with_replacement(closed, len(problem.topology.links)):
            if all(low <= high for low, high in pairwise(chain)) and keeps(chain, problem, analysis):
                other = Solution.of_sets(chain, len(analysis.graph.nodes), 1)
                values.append(problem.in_order(other.order).figures(other.cuts).throughput_per_s)
        if not values:
            with pytest.raises(InfeasibleError):
                plan_of(problem, pareto=False)
            continue
        found = plan_of(problem, pareto=False)
        assert found.optimality == "dag" or not problem.topology.links
        assert found.gap == 0  # a gap of rounding is none
        assert found.figures.throughput_per_s == pytest.approx(max(values), rel=1e-9)
        try:
            own = problem.figures(along_order(problem).cuts).throughput_per_s
        except InfeasibleError:
            own = 0.0
        beyond += own < max(values) * (1 - 1e-9)
    assert beyond
