"""Waiting against a discrete-event simulation, and planning with rates against trying all."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import simpy

from dnnsplit_onnx.errors import InfeasibleError, TopologyError
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.planning.costs import CostTable
from dnnsplit_onnx.planning.objective import evaluate
from dnnsplit_onnx.planning.planners import exact, exhaustive
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.planning.waiting import Station
from tests.strategies import OBJECTIVES, random_problem


@dataclass(frozen=True)
class Offered:
    """Requests that were drawn, and the queues that they pass.

    Attributes:
        queues: Of each tier and link that takes time, in order: how many of it, and servers of each.
        came: When each request comes.
        clients: Whose it is.
        services: For each of `queues`, the seconds that each request is served.
    """

    queues: list[tuple[int, int]]
    came: np.ndarray
    clients: np.ndarray
    services: list[np.ndarray]


def offered(figures, topology: Topology, requests: int, seed: int) -> Offered:
    """Poisson arrivals from clients at random, and exponential service times."""
    rng = np.random.default_rng(seed)
    work, queues, seconds = topology.workload, [], []
    for t, stage in enumerate(figures.stages):
        copies = work.clients if t == 0 else 1
        queues.append((copies, topology.tiers[t].replicas))
        seconds.append(stage.seconds)
        if t < len(figures.links):
            queues.append((copies, 1))
            seconds.append(figures.links[t].seconds)
    came = np.cumsum(rng.exponential(1 / work.requests_per_s, requests))
    clients = rng.integers(work.clients, size=requests)
    services = [rng.exponential(mean, requests) for mean in seconds if mean]
    return Offered([q for q, mean in zip(queues, seconds, strict=True) if mean], came, clients, services)


def waits_of_events(drawn: Offered) -> np.ndarray:
    """What each request waits in all, by discrete events."""
    env = simpy.Environment()
    line = [[simpy.Resource(env, servers) for _ in range(copies)] for copies, servers in drawn.queues]
    waits = np.zeros(len(drawn.came))

    def request(at: int):
        yield env.timeout(drawn.came[at])
        for copies, service in zip(line, drawn.services, strict=True):
            came = env.now
            with copies[drawn.clients[at] % len(copies)].request() as turn:
                yield turn
                waits[at] += env.now - came
                yield env.timeout(service[at])

    for at in range(len(drawn.came)):
        env.process(request(at))
    env.run()
    return waits


def waits_of_arrays(drawn: Offered) -> np.ndarray:
    """The same by Lindley's recursion (1952), a queue at a time: a hundred times sooner."""
    came, waits = drawn.came.copy(), np.zeros(len(drawn.came))
    for (copies, servers), service in zip(drawn.queues, drawn.services, strict=True):
        for copy in range(copies):
            mine = np.flatnonzero(drawn.clients % copies == copy)
            mine = mine[np.argsort(came[mine], kind="stable")]
            begun = _begun(came[mine], service[mine], servers)
            waits[mine] += begun - came[mine]
            came[mine] = begun + service[mine]
    return waits


def _begun(came: np.ndarray, service: np.ndarray, servers: int) -> np.ndarray:
    """When each request's service begins, first come first served."""
    if servers == 1:  # the next is free when the last is done: a greatest sum
        before = np.cumsum(service) - service
        return before + np.maximum.accumulate(came - before)
    free, begun = [0.0] * servers, []
    for at, seconds in zip(came.tolist(), service.tolist(), strict=True):
        start = max(at, free[0])
        heapq.heapreplace(free, start + seconds)
        begun.append(start)
    return np.array(begun)


def simulated_waiting(figures, topology: Topology, requests: int, seed: int) -> float:
    """Mean seconds that requests wait, all tiers and links passed as queues one after another."""
    waits = waits_of_events(offered(figures, topology, requests, seed))
    return float(np.mean(waits[requests // 10 :]))


@pytest.mark.parametrize(("clients", "replicas"), [(1, 1), (5, 3)])
def test_recursion_waits_as_long_as_events(clients: int, replicas: int) -> None:
    costs, topology = a_line(28.0 * replicas, clients, replicas)
    drawn = offered(evaluate([1], costs, topology), topology, 3_000, seed=2)
    waits = waits_of_arrays(drawn)
    assert waits.max() > 0.1
    np.testing.assert_allclose(waits, waits_of_events(drawn), atol=1e-9)


def a_line(rate: float, clients: int = 1, replicas: int = 1) -> tuple[CostTable, Topology]:
    """Two tiers whose stages take 8 and 30 ms, and a link of 10 ms between."""
    below = np.array([[0.0, 0.008, 0.5], [0.0, 0.5, 0.53]])
    flops = np.array([0, 1, 2])
    costs = CostTable(below, flops, np.array([9, 1250, 0]), np.zeros(3, dtype=np.int64))
    topology = Topology(
        tiers=[Tier("edge", gflops=1), Tier("cloud", gflops=1, replicas=replicas)],
        links=[Link(bandwidth_mbps=1)],
    )
    return costs, topology.with_workload(requests_per_s=rate, clients=clients)


def waited(figures) -> float:
    return sum(part.waiting_s for part in (*figures.stages, *figures.links))


@pytest.mark.parametrize(
    ("rate", "clients", "replicas", "requests"),
    [
        (20.0, 1, 1, 20_000),
        pytest.param(60.0, 1, 3, 60_000, marks=pytest.mark.slow),
        (80.0, 5, 4, 20_000),
    ],
)
def test_waiting_is_what_a_simulation_waits(rate: float, clients: int, replicas: int, requests: int) -> None:
    costs, topology = a_line(rate, clients, replicas)
    figures = evaluate([1], costs, topology)
    busiest = max(part.utilisation for part in (*figures.stages, *figures.links))
    assert 0.4 < busiest < 0.9
    found = [simulated_waiting(figures, topology, requests, seed) for seed in range(3)]
    # A few seeds tell how far a mean of so many requests may stray by chance.
    spread = np.std(found, ddof=1) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(waited(figures), rel=0.02, abs=3 * spread)


@pytest.mark.slow
@pytest.mark.parametrize("clients", [1, 4])
@pytest.mark.parametrize("busy", [0.4, 0.89])
def test_waiting_is_what_a_longer_simulation_waits(busy: float, clients: int) -> None:
    costs, topology = a_line(busy / 0.030, clients)
    figures = evaluate([1], costs, topology)
    found = [simulated_waiting(figures, topology, 100_000, seed) for seed in range(3)]
    spread = np.std(found, ddof=1) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(waited(figures), rel=0.02, abs=3 * spread)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("busy", "clients", "replicas", "requests"),
    [
        (0.5, 1, 1, 2_000_000),
        (0.7, 4, 3, 4_000_000),
        (0.8, 1, 1, 6_000_000),
        (0.85, 4, 3, 9_000_000),
        (0.89, 1, 1, 12_000_000),
        (0.89, 50, 1, 12_000_000),
    ],
)
def test_waiting_is_within_two_percent_below_90_percent(
    busy: float, clients: int, replicas: int, requests: int
) -> None:
    """So many requests that three standard errors are less than what is claimed."""
    costs, topology = a_line(1.0, clients, replicas)
    # The rate that keeps the busiest of them so busy.
    least = max(part.utilisation for part in _parts(evaluate([1], costs, topology)))
    topology = topology.with_workload(requests_per_s=busy / least)
    figures = evaluate([1], costs, topology)
    assert max(part.utilisation for part in _parts(figures)) == pytest.approx(busy)
    waits = waits_of_arrays(offered(figures, topology, requests, seed=1))[requests // 40 :]
    means = [float(batch.mean()) for batch in np.array_split(waits, 39)]
    spread = np.std(means, ddof=1) / math.sqrt(len(means))
    assert 3 * spread < 0.02 * waited(figures)
    assert np.mean(means) == pytest.approx(waited(figures), rel=0.02)


def _parts(figures) -> tuple:
    return (*figures.stages, *figures.links)


def test_erlang_by_hand() -> None:
    one = Station(requests_per_s=8.0)
    assert one.waits(0.1) == pytest.approx(0.8 * 0.1 / 0.2)  # M/M/1: u s / (1 - u)
    two = Station(servers=2, requests_per_s=10.0)
    assert two.waits(0.1) == pytest.approx(0.5**2 * 0.1 / (1 - 0.5**2))  # M/M/2: u^2 s / (1 - u^2)
    assert one.waits(0.125) == math.inf
    assert one.waits(0.0) == 0.0
    assert Station().waits(5.0) == 0.0


@pytest.mark.parametrize("servers", [1, 2, 7])
def test_one_figure_waits_what_an_array_of_it_waits(servers: int) -> None:
    station = Station(servers, 2, 6.0)
    seconds = [
        0.0,
        1e-320,
        1e-9,
        0.01,
        0.3,
        math.inf,
        *(servers / 3 * share for share in (0.5, 1 - 1e-15, 1, 2)),
    ]
    assert [station.waits(one) for one in seconds] == station.waiting(np.array(seconds)).tolist()


def with_rates(rng: np.random.Generator, problem: Problem) -> Problem:
    """Replicas, prices of requests, clients, and rates near what some plan sustains."""
    tiers = [
        tier.changed(
            replicas=int(rng.integers(1, 4)), usd_per_request=float(rng.choice([0, 0, 1e-4, 0.5, 20]))
        )
        for tier in problem.topology.tiers
    ]
    topology = problem.topology.changed(tiers=tiers).with_workload(clients=int(rng.choice([1, 1, 3, 50])))
    cuts = sorted(rng.integers(0, problem.costs.size + 1, len(topology.links)).tolist())
    pace = replace(problem, topology=topology).figures(cuts).throughput_per_s
    if 0 < pace < 1e14:
        if rng.random() < 0.7:
            rate = pace * float(rng.choice([0.3, 0.6, 0.9, 0.99, 1]))
            topology = topology.with_workload(requests_per_s=rate)
        if rng.random() < 0.4:
            limit = pace * float(rng.choice([0.5, 1, 1, 1.1]))
            topology = topology.with_limits(throughput_per_s=limit)
    return replace(problem, topology=topology)


def check_against_all(seeds: range) -> None:
    refused = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        objective = str(rng.choice([*OBJECTIVES, "weighted"]))
        problem = random_problem(rng, int(rng.integers(1, 6)), objective, limited=bool(rng.random() < 0.5))
        problem = with_rates(rng, problem)
        try:
            best = problem.figures(exhaustive.plan(problem).cuts)
        except InfeasibleError:
            refused += 1
            with pytest.raises((InfeasibleError, TopologyError)):
                exact.plan(problem)
            continue
        found = problem.figures(exact.plan(problem).cuts)
        assert not problem.violations(found)
        assert found.value(problem.objective) == pytest.approx(best.value(problem.objective), rel=1e-9)
    assert refused


def test_exact_is_the_best_of_all_with_rates_and_replicas() -> None:
    check_against_all(range(120))


@pytest.mark.slow
def test_exact_is_the_best_of_all_with_rates_and_replicas_often() -> None:
    check_against_all(range(5_000))


def test_a_rate_over_capacity_names_what_saturates() -> None:
    costs, topology = a_line(1000.0)
    with pytest.raises(InfeasibleError, match=r"no plan sustains 1000 requests per second: .*saturates"):
        exact.plan(Problem(costs, topology, "latency"))
    figures = evaluate([1], costs, topology)
    broken = Problem(costs, topology, "latency").violations(figures)
    assert "tier `cloud` saturates: the offered rate is 30 times what it can sustain" in broken
    assert figures.latency_s == math.inf


def test_a_throughput_limit_is_met_exactly() -> None:
    costs, topology = a_line(1.0)
    pace = evaluate([1], costs, topology).throughput_per_s
    problem = Problem(costs, topology.with_limits(throughput_per_s=pace), "latency")
    assert exact.plan(problem).cuts == (1,)
    with pytest.raises(InfeasibleError, match="no plan sustains"):
        exact.plan(
            replace(problem, topology=topology.with_limits(throughput_per_s=math.nextafter(pace, 1e9)))
        )


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"requests_per_s": math.nan}, "requests_per_s"), ({"requests_per_s": 0.0}, "requests_per_s"),
     ({"clients": 0}, "clients")],
)  # fmt: skip
def test_impossible_workloads_are_refused(fields, named: str) -> None:
    with pytest.raises(TopologyError, match=named):
        a_line(1.0)[1].with_workload(**fields)
    with pytest.raises(TopologyError, match="replicas"):
        Tier("edge", gflops=1, replicas=0)


def test_requests_are_charged_where_anything_runs() -> None:
    costs, topology = a_line(1.0)
    topology = topology.with_tier(1, usd_per_request=0.5)
    assert evaluate([1], costs, topology).cost_usd == 0.5
    assert evaluate([2], costs, topology).cost_usd == 0.0


def test_replicas_cost_and_carry_as_many_times_as_much() -> None:
    costs, topology = a_line(1.0)
    priced = topology.with_tier(1, usd_per_hour=3600.0)
    one = evaluate([1], costs, priced)
    four = evaluate([1], costs, priced.with_tier(1, replicas=4))
    assert four.cost_usd == pytest.approx(4 * one.cost_usd)
    assert one.throughput_per_s == pytest.approx(1 / 0.03)
    assert four.throughput_per_s == pytest.approx(1 / 0.01)  # the link is now the slowest
