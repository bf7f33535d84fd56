"""What takes the word "proven" away, and the gain that is not worth a second machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dnnsplit_onnx import Link, Tier, Topology, analyse, plan
from dnnsplit_onnx.machines.profiles import SCHEMA_VERSION, Profile, Segment
from dnnsplit_onnx.models import model_path
from dnnsplit_onnx.reporting.verdict import basis, verdict
from tests.reporting.plans_made import made

CUT = 20


@pytest.fixture(scope="module")
def analysis():
    return analyse(model_path("light_squeezenet"))


def machines(edge: Tier, **link) -> Topology:
    cloud = Tier("cloud", gflops=1000.0, watts=200.0)
    return Topology(tiers=[edge, cloud], links=[Link(bandwidth_mbps=100.0, **link)])


def test_energy_with_a_link_of_unknown_watts_is_not_proven(analysis) -> None:
    edge = Tier("edge", gflops=10.0, watts=5.0)
    unknown = plan(analysis, machines(edge), objective="energy")
    assert unknown.unknowns == ("link 0 has no `watts`, so plans that use what is unknown were left out",)
    assert "as far as is known" in basis(unknown)[0]
    assert "(proven)" not in basis(unknown)[0]
    known = plan(analysis, machines(edge, watts=1.5), objective="energy")
    assert known.unknowns == ()
    assert "(proven)" in basis(known)[0]
    # Only what is asked for matters.
    assert plan(analysis, machines(edge), objective="latency").unknowns == ()
    limited = plan(analysis, machines(edge).with_limits(energy_j=1e6), objective="latency")
    assert "link 0 has no `watts`" in limited.unknowns[0]


def measured(analysis, *, node_seconds: bool = False) -> Profile:
    """A profile of two segments, that end at `CUT` and with the model."""
    graph, size = analysis.graph, len(analysis.graph.nodes)
    segments = tuple(
        Segment(start=start, stop=stop, seconds=0.01, spread_s=0.0, runs=3)
        for start, stop in ((0, CUT), (CUT, size))
    )
    return Profile(
        schema_version=SCHEMA_VERSION, producer="test", tier="edge", provider="cpu", threads=0, model="m",
        model_sha256=graph.file.sha256(), order=analysis.order, nodes=size,
        bindings=dict(analysis.types.bindings), segments=segments, overhead_s=0.0, whole_s=0.02, machine={},
        versions={}, node_order=tuple(node.index for node in graph.nodes),
        node_seconds=(0.02 / size,) * size if node_seconds else None,
    )  # fmt: skip


def test_a_stage_that_ends_inside_a_measured_segment_is_interpolated(analysis) -> None:
    topology = machines(Tier("edge", profile=measured(analysis)))
    inside = plan(analysis, topology, cuts=[CUT + 5])
    assert [stage.interpolated for stage in inside.stages] == [True, False]
    where = f"the seconds of tier `edge` at cut {CUT + 5} are interpolated"
    assert inside.unknowns == (f"{where}: FLOPs shared out one measured segment",)
    assert [stage["interpolated"] for stage in inside.to_dict()["stages"]] == [True, False]
    said = "interpolated by FLOPs inside measured segments on `edge` and computed from FLOPs elsewhere."
    assert said in basis(inside)[0]
    assert inside.from_dict(inside.to_dict()).stages == inside.stages
    there = plan(analysis, topology, cuts=[CUT])
    assert not any(stage.interpolated for stage in there.stages)
    assert there.unknowns == ()
    assert "measured on `edge` and computed from FLOPs elsewhere." in basis(there)[0]


def test_times_of_nodes_leave_nothing_to_interpolate(analysis) -> None:
    topology = machines(Tier("edge", profile=measured(analysis, node_seconds=True)))
    assert plan(analysis, topology, cuts=[CUT + 5]).unknowns == ()


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (1.0 + 1e-9, "Splitting does not pay: everything on `a` is as fast."),
        (1.005, "Splitting gains 0.50%, under 1%: everything on `a` is recommended."),
        (1.0099, "Splitting gains 0.99%, under 1%: everything on `a` is recommended."),
        (1.0101, "Splitting pays: 1.01x faster than everything on `a`, the best single tier."),
    ],
)
def test_a_gain_under_one_percent_recommends_the_single_tier(gain: float, said: str) -> None:
    assert verdict(made((4,), (0.1, 0.1), (0.1,), (0.3 * gain, 0.9))) == (said,)


@pytest.mark.parametrize(
    "tiers",
    [
        {"tier": [{"name": "a", "pin": ["n"]}, {"name": "b"}]},
        {"tier": [{"name": "a", "private": True}, {"name": "b"}]},
        {"tier": [{"name": "a", "private_inputs": ["x"]}, {"name": "b"}]},
        {"tier": [{"name": "a", "min_prefix": 10}, {"name": "b"}]},
    ],
)
def test_where_a_rule_decides_the_transfer_is_not_blamed(tiers) -> None:
    alone = made((10,), (0.1, 0.0), (0.0,), (0.1, 0.9))
    assert verdict(alone)[1] == "Whatever a faster tier would save, sending it the data costs more."
    ruled = replace(alone, topology=tiers)
    assert verdict(ruled) == ("Everything on `a` is best of what the limits and rules allow.",)


def test_a_limit_that_costs_nothing_is_not_blamed() -> None:
    alone = made((10,), (0.1, 0.0), (0.0,), (0.1, 0.9))
    limited = replace(alone, limits={"deadline_ms": 500.0}, gap=0.0)
    assert "sending it the data costs more" in verdict(limited)[1]
    assert verdict(replace(limited, gap=0.1)) == (
        "Everything on `a` is best of what the limits and rules allow.",
    )


def test_a_real_plan_that_a_cap_keeps_whole_says_so(analysis) -> None:
    free = machines(Tier("edge", gflops=10.0))
    assert plan(analysis, free).is_split
    capped = free.with_link(0, max_mb=1e-6)
    held = plan(analysis, capped)
    assert not held.is_split
    assert verdict(held) == ("Everything on `edge` is best of what the limits and rules allow.",)
