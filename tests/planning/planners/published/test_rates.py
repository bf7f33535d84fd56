"""Published planners that know the rate of requests."""

from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.planning.choosing import problem_of
from dnnsplit_onnx.planning.planners import exact, get_planner
from tests.dags import random_workload


@pytest.mark.parametrize("count", [2, 3])
def test_decc_finds_the_best_division_at_the_rate(count: int) -> None:
    """Every position is tried and waiting is the objective's: so it is as good as `exact`."""
    for seed in range(25):
        rng = np.random.default_rng([seed, count])
        analysis = random_workload(rng, 8)
        machines = Topology(
            tiers=[Tier(f"t{t}", gflops=1e-6 * 3**t) for t in range(count)],
            links=[Link(bandwidth_mbps=0.01)] * (count - 1),
        )
        wide = problem_of(analysis, machines, "throughput")
        pace = wide.figures(exact.along_order(wide).cuts).throughput_per_s
        if not np.isfinite(pace):
            continue
        problem = problem_of(analysis, machines.with_workload(requests_per_s=0.8 * pace), "latency")
        best = problem.figures(exact.along_order(problem).cuts).latency_s
        assert problem.figures(get_planner("decc")(problem).cuts).latency_s == pytest.approx(best)


def test_dads_switches_where_light_load_does_not_keep_up() -> None:
    switched = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        analysis = random_workload(rng, 8)
        machines = Topology(
            tiers=[Tier("edge", gflops=1e-6), Tier("cloud", gflops=3e-6)], links=[Link(bandwidth_mbps=0.01)]
        )
        light, heavy = (problem_of(analysis, machines, aim) for aim in ("latency", "throughput"))  # type: ignore[arg-type]
        plans = [get_planner("dads")(problem) for problem in (light, heavy)]
        paces = [light.in_order(found.order).figures(found.cuts).throughput_per_s for found in plans]
        if not paces[0] < paces[1]:
            continue
        between = float(np.sqrt(paces[0] * paces[1]))
        busy = problem_of(analysis, machines.with_workload(requests_per_s=between), "latency")
        found = get_planner("dads")(busy)
        pace = light.in_order(found.order).figures(found.cuts).throughput_per_s
        assert pace == pytest.approx(paces[1])
        calm = problem_of(analysis, machines.with_workload(requests_per_s=paces[0] / 2), "latency")
        assert get_planner("dads")(calm).cuts == plans[0].cuts
        switched += 1
    assert switched
