"""The scripts of the paper's later figures: what they are made of, against hand examples."""

from __future__ import annotations

import runpy
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts" / "paper"
sys.path.insert(0, str(SCRIPTS))  # as Python does for the folder of a script that it runs

from lib.networks import analysis  # noqa: E402
from lib.paying import deal  # noqa: E402
from lib.random_lines import Pairs, random_topologies  # noqa: E402
from lib.trusting import tiers_of, trust  # noqa: E402

from dnnsplit_onnx.graph.shapes import bind_shapes  # noqa: E402
from dnnsplit_onnx.machines.tiers_file import parse_topology  # noqa: E402
from dnnsplit_onnx.machines.topology import Topology  # noqa: E402
from dnnsplit_onnx.planning.choosing import problem_of  # noqa: E402
from dnnsplit_onnx.work.analysis import Analysis, measure  # noqa: E402

MINE = sorted(
    path.name
    for prefix in ("tiers_", "cost_", "throughput_", "systems_", "pays_", "claims_")
    for path in SCRIPTS.glob(f"{prefix}*")
)
# A squeeze-excite block: the feature map goes around the vector that is made of it.
BLOCK = """
m (float[1, 4, 10, 10] image) => (float[1, 1, 1, 1] y)
{
    squeezed = GlobalAveragePool(image)
    gate = Exp(squeezed)
    scaled = Mul(image, gate)
    y = ReduceMax <keepdims = 1> (scaled)
}
"""


@pytest.fixture
def block(graph_text) -> Analysis:
    graph = graph_text(BLOCK)
    return measure(graph, bind_shapes(graph))


def two_tiers(edge_flops: float, cloud_flops: float, nbytes_per_s: float, **limits: float) -> Topology:
    """Speeds in FLOP/s and byte/s."""
    tiers = [{"name": "edge", "gflops": edge_flops / 1e9}, {"name": "cloud", "gflops": cloud_flops / 1e9}]
    link = {"bandwidth_mbps": nbytes_per_s * 8 / 1e6}
    return parse_topology({"tier": tiers, "link": [link], "limits": limits}, "test")


@pytest.mark.parametrize("script", MINE)
def test_every_script_says_what_it_does(script, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_there_are_scripts() -> None:
    assert len(MINE) >= 11


def test_a_plan_by_layer_input_is_paid_for_by_live_values(block) -> None:
    # A link of 1,000 byte/s: the image takes 1.6 s; edge 1,000 FLOP/s, cloud a million.
    flops = block.flops.tolist()
    topology = two_tiers(1e3, 1e6, 1e3)
    shown = problem_of(block, topology, "latency", "layer-input")
    found = trust(shown, problem_of(block, topology, "latency", "live"))
    # By layer-input the cut after the first node sends the 16 bytes of the squeezed vector; in
    # truth the image of 1,600 goes with it.
    assert found.believed.cuts == found.true.cuts == (1,)
    assert found.believed.latency_s == pytest.approx(flops[0] / 1e3 + 0.016 + sum(flops[1:]) / 1e6)
    assert found.true.latency_s == pytest.approx(flops[0] / 1e3 + 1.616 + sum(flops[1:]) / 1e6)
    edge, cloud = sum(flops) / 1e3, 1.6 + sum(flops) / 1e6
    assert [single.latency_s for single in found.singles] == pytest.approx([edge, cloud])
    assert found.best.latency_s == pytest.approx(min(edge, cloud))
    assert found.paid == pytest.approx(found.true.latency_s / min(edge, cloud))
    assert found.paid > 1
    assert found.gain(found.believed) > 1 > found.gain(found.true)
    assert found.gain(found.true, found.singles[0]) == pytest.approx(edge / found.true.latency_s)
    assert (tiers_of(found.true), tiers_of(found.singles[1])) == ("edge+cloud", "cloud")


def test_limits_that_are_broken_in_truth_are_named(block) -> None:
    topology = two_tiers(1e3, 1e6, 1e3, deadline_ms=1700.0)
    shown = problem_of(block, topology, "latency", "layer-input")
    found = trust(shown, problem_of(block, topology, "latency", "live"))
    assert found.believed.latency_s <= 1.7 < found.true.latency_s
    assert len(found.broken) == 1
    assert "exceeds 1700 ms" in found.broken[0]
    assert found.rivals == found.singles
    late = topology.with_limits(deadline_ms=1500.0)  # the image alone takes 1.6 s
    truth = problem_of(block, late, "latency", "live")
    found = trust(problem_of(block, late, "latency", "layer-input"), truth)
    assert found.rivals == found.singles[:1]
    assert found.best_single is found.singles[0]


def test_throughput_is_compared_in_requests(block) -> None:
    topology = two_tiers(1e3, 1e6, 1e3)
    truth = problem_of(block, topology, "throughput", "live")
    found = trust(problem_of(block, topology, "throughput", "layer-input"), truth)
    assert found.paid == pytest.approx(found.best.throughput_per_s / found.true.throughput_per_s)
    best = max(single.throughput_per_s for single in found.singles)
    assert found.gain(found.best) == pytest.approx(found.best.throughput_per_s / best)


def test_the_most_that_a_split_can_gain() -> None:
    pairs = Pairs(np.array([0, 10, 100]), np.array([1000, 100, 0]))
    assert pairs.most_gain == pytest.approx(5)  # 10 of 100 FLOPs and 100 of 1,000 bytes
    # Both single tiers take a second, the cloud nothing for its work: the bound is reached.
    assert pairs.gain(two_tiers(100, 1e12, 1000)) == pytest.approx(5, rel=1e-6)
    assert pairs.gain(two_tiers(100, 1e12, 1000 / 30)) == pytest.approx(1)
    straight = Pairs(np.array([0, 50, 100]), np.array([1000, 501, 0]))
    assert straight.most_gain == 1


def test_no_infrastructure_exceeds_it() -> None:
    rng = np.random.default_rng(1)
    topologies = random_topologies(40, seed=2)
    near = 0.0
    for _ in range(20):
        inner = int(rng.integers(1, 5))
        flops = np.concatenate(([0], np.cumsum(rng.integers(1, 10**9, inner + 1))))
        nbytes = np.concatenate(([10**6], np.sort(rng.integers(1, 10**6, inner))[::-1], [0]))
        pairs = Pairs(flops, nbytes)
        gains = [pairs.gain(topology) for topology in topologies]
        assert max(gains) <= pairs.most_gain * (1 + 1e-9)
        assert min(gains) >= 1 - 1e-9
        near = max(near, (max(gains) - 1) / (pairs.most_gain - 1) if pairs.most_gain > 1 else 0.0)
    assert near > 0.5  # the bound is no idle one


@pytest.mark.parametrize(("model", "pays"), [("light_squeezenet", True), ("light_inception_v1", False)])
def test_which_models_can_gain_at_all(model, pays) -> None:
    assert (Pairs.of(analysis(model)).most_gain > 1) is pays


def test_random_lines_rise_and_keep_to_their_ranges() -> None:
    ranges = {"edge_gflops": (5.0, 6.0), "faster": (2.0, 3.0)}
    for topology in random_topologies(50, seed=0, ranges=ranges):
        speeds = [tier.gflops for tier in topology.tiers]
        assert 5 <= speeds[0] <= 6
        assert all(2 <= high / low <= 3 for low, high in pairwise(speeds))
    assert random_topologies(3, seed=7) == random_topologies(3, seed=7)


def test_a_deal_knows_its_rival(block) -> None:
    topology = two_tiers(1e3, 1e6, 1e3)
    free = deal("block", "free", block, topology, "latency")
    assert free is not None
    assert free.gain == pytest.approx(free.single_value / free.value)
    only = block.memory.nbytes(0, 1)
    assert only is not None
    edge = topology.tiers[0].model_copy(update={"memory_gb": only / 1e9, "private": True})
    limits = topology.limits.model_copy(update={"private_until": "squeezed"})
    barred = topology.model_copy(update={"tiers": (edge, topology.tiers[1]), "limits": limits})
    assert deal("block", "barred", block, barred, "latency") is None  # the image may never leave
    late = topology.with_limits(deadline_ms=1e-9)
    assert deal("block", "too late", block, late, "latency") is None


def test_where_only_a_split_will_do_the_gain_is_beyond_measure() -> None:
    model = analysis("light_squeezenet")
    flops, nbytes = int(model.flops_below[-1]), int(model.cut_nbytes()[0])
    topology = two_tiers(flops, 1e3 * flops, nbytes)  # a second on the edge, a second to send the input
    free = deal("squeezenet", "free", model, topology, "latency")
    assert free is not None
    assert free.gain > 2
    late = topology.with_limits(deadline_ms=free.value * 1e3)
    found = deal("squeezenet", "late", model, late, "latency")
    assert found is not None
    assert found.plan.best_single_tier is None
    assert found.gain == float("inf")
