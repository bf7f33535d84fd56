"""Rows shared among machines: the planner against every way there is."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnsplit_onnx.errors import InputError, PlanError, TopologyError
from dnnsplit_onnx.graph.graph import build_graph, load_graph
from dnnsplit_onnx.graph.modelfile import ModelFile
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.tiers import Lan, Machine, Tier
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.machines.topology import Link, Topology, Workload
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.planning.costs import cost_table
from dnnsplit_onnx.planning.objective import evaluate
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.planning.sharing import MachineSeconds, share_rows
from dnnsplit_onnx.slicing import slice_all_candidates
from dnnsplit_onnx.work.analysis import Analysis, measure
from dnnsplit_onnx.work.tiling import Region, longest_region, region_of
from tests.slicing.stacks import Stack


def an_analysis(seed: int, layers: int, height: int = 9) -> Analysis:
    rng = np.random.default_rng(seed)
    stack = Stack(rng, height=height, width=6)
    for _ in range(layers):
        stack.pick(stack.conv, stack.activation, stack.pool, stack.residual, stack.normalise)()
        if min(stack.shape[2:]) < 3:
            break
    graph = build_graph(ModelFile(Path("stack.onnx"), stack.model()))
    return measure(graph, bind_shapes(graph))


def a_tier(speeds: Sequence[float], bandwidth_mbps: float, delay_ms: float) -> Tier:
    machines = [Machine(name=f"m{at}", gflops=speed) for at, speed in enumerate(speeds)]
    return Tier("edge", machines=machines, lan=Lan(bandwidth_mbps=bandwidth_mbps, delay_ms=delay_ms))


def machines_of(
    analysis: Analysis, tier: Tier, run_s: float = 0.0, fixed_s: float = 0.0
) -> list[MachineSeconds]:
    """Seconds by the machines' speeds, and what a run, and each node, take on top."""
    fixed = np.full(len(analysis.flops), fixed_s)
    speeds = [(machine.gflops or 0.0) * 1e9 for machine in tier.machines]
    return [MachineSeconds(analysis.flops / speed, fixed, run_s) for speed in speeds]


def makespan(
    analysis: Analysis, region: Region, counts: Sequence[int], tier: Tier, machines: Sequence[MachineSeconds]
) -> float:
    """A region's seconds by the definition: tile by tile, event by event."""
    assert tier.lan is not None
    rate, delay = tier.lan.bandwidth_mbps * 1e6 / 8, tier.lan.delay_ms / 1e3
    types = analysis.types
    sent, first, results = 0.0, 0.0, []
    for at, (tile, machine) in enumerate(zip(region.tiles(counts), machines, strict=True)):
        if tile is None:
            continue
        seconds = machine.run_s
        for node in tile.nodes:
            position = node.step.position
            seconds += float(machine.by_rows[position]) * node.share + float(machine.fixed[position])
        if at == 0:
            first = seconds
            continue
        nbytes = []
        for rows in (tile.inputs, tile.outputs):
            total = 0.0
            for name, part in rows.items():
                whole = types.nbytes(name) or 0
                total += whole if part is None else whole * len(part) / region.heights[name]
            nbytes.append(total)
        sent += nbytes[0] / rate
        results.append((sent + delay + seconds, nbytes[1] / rate))
    back = 0.0
    for ready, takes in sorted(results):
        back = max(back, ready) + takes
    return max(first, back + delay if results else 0.0)


def compositions(rows: int, machines: int) -> Iterator[tuple[int, ...]]:
    for bars in itertools.combinations_with_replacement(range(rows + 1), machines - 1):
        bounds = (0, *bars, rows)
        yield tuple(b - a for a, b in itertools.pairwise(bounds))


def exhaustive(analysis: Analysis, tier: Tier, machines: Sequence[MachineSeconds]) -> list[float]:
    """Least seconds of every prefix, every region and every number of rows tried."""
    size = len(analysis.graph.nodes)
    first = machines[0]
    best = [0.0]
    for stop in range(1, size + 1):
        # What one machine computes alone is one run, from wherever it begins.
        options = [
            best[start] + first.run_s + float((first.by_rows + first.fixed)[start:stop].sum())
            for start in range(stop)
        ]
        for start in range(stop):
            longest = longest_region(analysis.graph, analysis.types, start, stop)
            if longest is None or longest.stop < stop:
                continue
            region = region_of(analysis.graph, analysis.types, start, stop)
            every = [one for one in compositions(region.height, len(tier.machines)) if any(one[1:])]
            options += [best[start] + makespan(analysis, region, one, tier, machines) for one in every]
        best.append(min(options))
    return best


@settings(max_examples=8, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.lists(st.floats(0.001, 0.02), min_size=2, max_size=2),
    st.floats(1, 1000),
    st.floats(0, 0.5),
)
def test_two_machines_are_shared_as_well_as_can_be(
    seed: int, layers: int, speeds: list[float], bandwidth_mbps: float, delay_ms: float
) -> None:
    analysis = an_analysis(seed, layers)
    tier = a_tier(speeds, bandwidth_mbps, delay_ms)
    rows = cost_table(analysis, Topology(tiers=[tier])).rows
    assert rows is not None
    best = exhaustive(analysis, tier, machines_of(analysis, tier))
    # Inside a run of nodes that copy rows no region ends, so compare where one may.
    assert rows.seconds_below[-1] == pytest.approx(best[-1], rel=1e-9)
    assert (rows.seconds_below >= np.array(best) * (1 - 1e-9)).all()


@settings(max_examples=6, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.floats(0, 0.02),
    st.floats(0, 0.005),
    st.floats(1, 1000),
)
def test_the_fixed_cost_of_a_run_and_of_a_node_is_paid_for_each_tile(
    seed: int, layers: int, run_s: float, fixed_s: float, bandwidth_mbps: float
) -> None:
    analysis = an_analysis(seed, layers)
    tier = a_tier([0.002, 0.001], bandwidth_mbps, 0.1)
    machines = machines_of(analysis, tier, run_s, fixed_s)
    rows = share_rows(analysis, tier, machines)
    best = exhaustive(analysis, tier, machines)
    # Where runs cost, to gather behind a node that copies rows may save one: no plan is better than the best.
    assert (rows.seconds_below >= np.array(best) * (1 - 1e-9)).all()
    assert rows.seconds_below[-1] == pytest.approx(best[-1], rel=1e-9)
    size = len(analysis.graph.nodes)
    regions = {(share.start, share.stop): [] for share in rows.machines(size)}  # type: ignore[var-annotated]
    for share in rows.machines(size):
        regions[share.start, share.stop].append(share.seconds)
        assert share.seconds >= run_s
    # Machines at work: never less than the slowest of each region, one after the other.
    assert rows.seconds_below[-1] >= sum(map(max, regions.values())) * (1 - 1e-9)


def test_the_fixed_cost_of_a_profile_is_a_run_of_each_region(tmp_path: Path) -> None:
    onnx.save(an_analysis(5, 6, height=40).graph.proto, tmp_path / "stack.onnx")
    graph = load_graph(tmp_path / "stack.onnx")
    analysis = measure(graph, bind_shapes(graph))
    size = len(analysis.graph.nodes)
    profile = {
        "schema_version": 1,
        "producer": "test",
        "tier": "m",
        "provider": "cpu",
        "threads": 1,
        "model": "stack.onnx",
        "model_sha256": analysis.graph.file.sha256(),
        "order": analysis.order,
        "nodes": size,
        "bindings": {},
        "overhead_s": 0.01,
        "whole_s": 0.11,
        "machine": {},
        "versions": {},
        "segments": [
            {"start": 0, "stop": size - 1, "seconds": 0.09, "spread_s": 0.0, "runs": 5},
            {"start": size - 1, "stop": size, "seconds": 0.01, "spread_s": 0.0, "runs": 5},
        ],
        "parts": [{"position": size - 1, "below_s": 0.1, "above_s": 0.02, "spread_s": 0.0, "runs": 5}],
        "node_order": [node.index for node in analysis.graph.nodes],
    }
    path = tmp_path / "m.profile.json"
    path.write_text(json.dumps(profile))
    tier = Tier(
        "edge",
        machines=[Machine(name=name, profile=str(path)) for name in ("a", "b")],
        lan=Lan(bandwidth_mbps=1e6, delay_ms=0.0),
    )
    rows = cost_table(analysis, Topology(tiers=[tier])).rows
    assert rows is not None
    assert rows.alone[-1] == pytest.approx(0.11)
    for one in rows.machines_s:
        assert one.run_s == pytest.approx(0.01)
        assert float(one.per_node.sum()) == pytest.approx(0.1)


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.floats(0.001, 0.02), min_size=3, max_size=3), st.floats(1, 1000))
def test_three_machines_are_shared_within_five_percent_of_the_best(
    seed: int, speeds: list[float], bandwidth_mbps: float
) -> None:
    analysis = an_analysis(seed, 2, height=7)
    tier = a_tier(speeds, bandwidth_mbps, 0.1)
    rows = cost_table(analysis, Topology(tiers=[tier])).rows
    assert rows is not None
    assert rows.seconds_below[-1] <= 1.05 * exhaustive(analysis, tier, machines_of(analysis, tier))[-1]


def planned(seed: int = 5, **lan: float) -> tuple[Analysis, Topology, Plan]:
    analysis = an_analysis(seed, 6, height=40)
    tiers = [a_tier([0.01, 0.02], lan.get("bandwidth_mbps", 1000.0), 0.01), Tier("cloud", gflops=1)]
    topology = Topology(tiers=tiers, links=[Link(bandwidth_mbps=0.05, delay_ms=5)])
    return analysis, topology, plan(analysis, topology)


def test_stages_say_who_computes_what_and_evaluate_agrees() -> None:
    analysis, topology, made = planned()
    stage = made.figures.stages[0]
    assert stage.machines
    assert {share.machine for share in stage.machines} == {"m0", "m1"}
    costs = cost_table(analysis, topology)
    assert evaluate(made, costs, topology).latency_s == made.figures.latency_s
    covered = [(share.start, share.stop) for share in stage.machines]
    ends = list(dict.fromkeys(covered))
    assert ends[0][0] == 0
    assert ends[-1][1] == stage.stop
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ends))
    for start, stop in ends:
        shares = [share for share in stage.machines if (share.start, share.stop) == (start, stop)]
        if shares[0].rows is None:
            continue
        region = region_of(analysis.graph, analysis.types, start, stop)
        parts = [share.rows for share in shares if share.rows is not None]
        assert parts[0][0] == 0
        assert parts[-1][1] == region.height
        assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    assert Plan.from_dict(made.to_dict()) == made


@pytest.mark.parametrize("objective", ["latency", "throughput", "cost"])
def test_cuts_above_are_chosen_together_with_the_rows(objective: str) -> None:
    analysis = an_analysis(11, 6, height=30)
    tiers = [a_tier([0.01, 0.01], 200, 0.05), Tier("cloud", gflops=0.03, usd_per_hour=1)]
    tiers[0] = tiers[0].changed(usd_per_hour=0.5)
    topology = Topology(tiers=tiers, links=[Link(bandwidth_mbps=2, delay_ms=1)])
    best, every = (
        plan(analysis, topology, objective=objective, planner=name)  # type: ignore[arg-type]
        for name in ("exact", "exhaustive")
    )
    assert best.figures.value(best.objective) == pytest.approx(
        every.figures.value(every.objective), rel=1e-12
    )


def test_a_plan_says_what_sharing_gains_and_when_it_loses() -> None:
    *_, gains = planned()
    assert any("rows computed twice" in note for note in gains.notes)
    *_, loses = planned(bandwidth_mbps=0.001)
    assert any("loses: `m0` alone is faster" in note for note in loses.notes)
    assert {share.machine for share in loses.figures.stages[0].machines} <= {"m0"}


def test_slices_of_all_candidates_are_refused_where_rows_are_shared(tmp_path: Path) -> None:
    analysis, _, made = planned()
    with pytest.raises(PlanError, match="shares rows") as raised:
        slice_all_candidates(analysis.graph, made, [], tmp_path / "slices")
    assert "leave out --all-candidates" in (raised.value.hint or "")
    assert not (tmp_path / "slices").exists()


BAD = {
    "two of its machines are named `a`": {
        "machine": [{"name": "a", "gflops": 1}, {"name": "A", "gflops": 1}]
    },
    "several machines need a": {"machine": [{"name": "a", "gflops": 1}, {"name": "b", "gflops": 1}]},
    "take the tier's own away": {"gflops": 3.0, "machine": [{"name": "a", "gflops": 1}]},
    "machine `b`: give `gflops` or `profile`": {"machine": [{"name": "a", "gflops": 1}, {"name": "b"}]},
    "the tier names none": {"gflops": 3.0, "lan": {"bandwidth_mbps": 1}},
    "bandwidth_mbps` = 0": {"machine": [{"name": "a", "gflops": 1}], "lan": {"bandwidth_mbps": 0}},
    "bandwidth_mbps` = -1": {"machine": [{"name": "a", "gflops": 1}], "lan": {"bandwidth_mbps": -1}},
    "bandwidth_mbps` = nan": {
        "machine": [{"name": "a", "gflops": 1}],
        "lan": {"bandwidth_mbps": float("nan")},
    },
    "lan.bandwidth_mbps`: field required": {
        "machine": [{"name": "a", "gflops": 1}],
        "lan": {"delay_ms": 1},
    },
    "known keys here: bandwidth_mbps": {
        "machine": [{"name": "a", "gflops": 1}],
        "lan": {"bandwith": 1, "bandwidth_mbps": 1},
    },
}


@pytest.mark.parametrize("message", BAD)
def test_machines_that_cannot_be_are_refused(message: str) -> None:
    with pytest.raises(TopologyError) as raised:
        parse_topology({"tier": [{"name": "edge", **BAD[message]}]}, "tiers.toml")
    assert message in f"{raised.value.message} {raised.value.hint}"


@pytest.mark.parametrize("rule", [{"private": True}, {"private_inputs": ("x",)}])
@pytest.mark.parametrize("owner", ["edge", "home"])
def test_a_trusted_lan_alone_may_carry_private_rows(owner: str, rule: dict[str, object]) -> None:
    """Tiers below a private one are private too, so a rule of `home` holds for `edge`."""

    def topology(*, trusted: bool, machines: int = 2) -> Topology:
        edge = a_tier([1.0] * machines, 10, 0)
        edge = edge.changed(lan=Lan(bandwidth_mbps=10, trusted=trusted))
        tiers = [edge, Tier("home", gflops=1), Tier("cloud", gflops=1)]
        return Topology(
            tiers=[tier.changed(**rule) if tier.name == owner else tier for tier in tiers],
            links=[Link(bandwidth_mbps=1)] * 2,
        )

    with pytest.raises(TopologyError, match=r"private.* may not travel") as raised:
        topology(trusted=False)
    assert "trusted = true" in f"{raised.value.message} {raised.value.hint}"
    assert len(topology(trusted=True).tiers[0].machines) == 2  # and both hints work
    assert len(topology(trusted=False, machines=1).tiers[0].machines) == 1


def test_a_lan_of_nearly_no_bandwidth_is_not_used() -> None:
    *_, made = planned(bandwidth_mbps=1e-15)
    (share,) = made.figures.stages[0].machines
    assert (share.machine, share.rows) == ("m0", None)
    assert math.isfinite(made.figures.latency_s)


def test_the_lowest_tier_alone_divides_rows() -> None:
    tiers = [Tier("edge", gflops=1), a_tier([1, 1], 10, 0)]
    with pytest.raises(TopologyError, match="the lowest tier alone"):
        Topology(tiers=[tiers[0], tiers[1].changed(name="top")], links=[Link(bandwidth_mbps=1)])


def test_more_machines_than_rows_leave_some_without() -> None:
    analysis = an_analysis(3, 2, height=6)
    topology = Topology(tiers=[a_tier([0.001] * 12, 1000, 0)])
    made = plan(analysis, topology)
    shared = [share for share in made.figures.stages[0].machines if share.rows is not None]
    assert shared
    for (start, stop), group in itertools.groupby(shared, key=lambda share: (share.start, share.stop)):
        shares = list(group)
        height = region_of(analysis.graph, analysis.types, start, stop).height
        rows = [row for share in shares if share.rows for row in range(*share.rows)]
        assert rows == list(range(height))  # each once, in order
        assert len({share.machine for share in shares}) == len(shares) <= height < 12


def test_coedge_shares_in_one_proportion_and_is_no_better_than_exact() -> None:
    analysis = an_analysis(5, 6, height=40)
    topology = Topology(tiers=[a_tier([0.01, 0.02, 0.000001], 1000, 0.01)])
    ours, theirs = (plan(analysis, topology, planner=name) for name in ("exact", "coedge"))
    assert ours.figures.latency_s <= theirs.figures.latency_s * (1 + 1e-9)
    shares = theirs.figures.stages[0].machines
    assert {share.machine for share in shares if share.rows} == {"m0", "m1"}  # m2 is below the threshold
    assert any("as published" in note for note in theirs.notes)
    first, second = (share for share in shares if share.rows and share.start == shares[0].start)
    assert first.rows is not None
    assert second.rows is not None
    assert (second.rows[1] - second.rows[0]) == pytest.approx(2 * (first.rows[1] - first.rows[0]), abs=2)


def test_coedge_needs_several_machines() -> None:
    analysis = an_analysis(5, 2)
    with pytest.raises(InputError, match="is one"):
        plan(analysis, Topology(tiers=[Tier("edge", gflops=1)]), planner="coedge")


@pytest.mark.parametrize("clients", [1, 4])
def test_the_matching_game_moves_work_to_machines_that_share_rows(clients: int) -> None:
    """`dina` prices the tier of each requester by the best way to share its rows."""
    shared = 0
    for seed in range(6):
        analysis = an_analysis(seed, 4)
        speed = float(analysis.flops.sum()) / 1e9 / 0.1  # 0.1 s on one machine
        cloud = Tier("cloud", gflops=3 * speed, replicas=2)
        tiers = [a_tier([speed, speed], 1000.0, 0.01), cloud]
        topology = Topology(tiers=tiers, links=[Link(bandwidth_mbps=0.1)], workload=Workload(clients=clients))
        matched = plan(analysis, topology, planner="dina")
        again = plan(analysis, topology, cuts=list(matched.cuts))
        assert matched.latency_s == pytest.approx(again.latency_s, rel=1e-12)
        least = plan(analysis, topology).latency_s
        assert matched.latency_s >= least * (1 - 1e-12)
        if clients == 1:
            assert matched.latency_s <= min(single.latency_s for single in matched.single_tier) * (1 + 1e-12)
        shared += any(share.rows is not None for share in matched.figures.stages[0].machines)
    assert shared
