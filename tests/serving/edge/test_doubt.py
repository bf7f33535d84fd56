"""What no request tells of any more is doubted; what is confirmed is believed for longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.planning.choosing import problem_of
from dnnsplit_onnx.serving.edge import doubt as doubting
from dnnsplit_onnx.serving.edge.adaptive import Adaptive
from dnnsplit_onnx.serving.edge.doubt import Doubt
from dnnsplit_onnx.serving.tier.cuts import Cuts
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire.trace import TierTrace
from dnnsplit_onnx.slicing.manifest import load_manifest
from dnnsplit_onnx.work.analysis import measure
from tests.serving.edge.test_adaptive import NBYTES, shrinking  # noqa: F401  # a fixture
from tests.serving.wire.test_estimate import hop

ALL_ON_EDGE, ALL_ON_CLOUD = (2,), (0,)
#: The edge takes 105 ms, the cloud 2 ms, and at 50 Mbit/s the input 42 ms.
TOPOLOGY = {
    "tier": [{"name": "edge", "gflops": 0.02}, {"name": "cloud", "gflops": 1.0}],
    "link": [{"bandwidth_mbps": 50.0, "delay_ms": 1.0}],
}
SLOW = 200.0  # times; the cloud is slower than the edge then


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(doubting.time, "monotonic", lambda: now[0])
    return now


@given(ratio=st.floats(1e-3, 1e3), idle_s=st.floats(0, 1e9))
def test_doubt_grows_from_what_was_seen_to_what_was_planned(ratio: float, idle_s: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        now = [5.0]
        patch.setattr(doubting.time, "monotonic", lambda: now[0])
        doubt = Doubt()
        assert doubt.trust == 1
        doubt.untold()
        now[0] += idle_s
        doubt.untold()  # the first of them counts
        assert doubt.trust == pytest.approx(0.5 ** (idle_s / 5))
        # Whatever is told next, it is gone on from the nearer of what was remembered and its faded rest.
        faded = ratio**doubt.trust
        start = doubt.told(seen=ratio, remembered=ratio)
        assert start == ratio
        assert min(1.0, ratio) <= faded <= max(1.0, ratio)
        assert doubt.trust == 1


def test_what_is_confirmed_is_doubted_half_as_fast(clock: list[float]) -> None:
    doubt = Doubt()
    for half_s in (5, 10, 20):
        doubt.untold()
        clock[0] += half_s
        assert doubt.trust == pytest.approx(0.5)
        assert doubt.told(seen=3.9, remembered=4.0) == 4.0
    doubt.untold()
    clock[0] += 40
    assert doubt.told(seen=1.1, remembered=4.0) == pytest.approx(2.0)
    doubt.untold()
    clock[0] += 5
    assert doubt.trust == pytest.approx(0.5)


class Run:
    """Requests on an emulated clock: an edge as planned, a cloud that may be slower."""

    def __init__(self, folder: Path, clock: list[float]) -> None:
        graph = load_graph(folder / "model.onnx")
        problem = problem_of(measure(graph, bind_shapes(graph)), parse_topology(TOPOLOGY, "t"), "latency")
        self.clock = clock
        self.chooser = Adaptive(Routes(load_manifest(folder / "out")), problem)
        self.chooser.close()  # it plans when it is told to, below
        self.planned_s = [float(row[-1]) for row in problem.costs.seconds_below]

    def request(self, mbps: float, cloud_scale: float) -> Cuts:
        """One request a second with the cuts of the moment; returns them."""
        self.clock[0] += 1.0
        cuts = self.chooser.choose(1)
        assert cuts is not None
        told = hop(NBYTES, mbps, 1.0, above_s=self.planned_s[1] * cloud_scale)
        if cuts == ALL_ON_EDGE:
            # The link is measured as it is where nothing crosses it; the cloud is not.
            self.chooser._seen.links[0].observe(told)
            self.chooser.observe(cuts, (TierTrace("edge", 0, self.planned_s[0], self.planned_s[0]),), None)
        else:
            self.chooser.observe(cuts, (TierTrace("edge", 0, 0, told.total_s, hop=told), *told.tiers), told)
        self.chooser._plan_again()
        return cuts


@pytest.fixture
def run(shrinking: Path, clock: list[float]) -> Run:  # noqa: F811
    return Run(shrinking, clock)


def test_cuts_return_to_a_tier_that_was_slow_for_a_moment(run: Run) -> None:
    assert run.request(50, 1.0) == ALL_ON_CLOUD
    for _ in range(10):
        run.request(50, SLOW)  # a machine that was busy for a moment
    assert run.request(50, 1.0) == ALL_ON_EDGE
    later = [run.request(50, 1.0) for _ in range(60)]
    assert later[-1] == ALL_ON_CLOUD


def test_a_tier_that_is_slow_for_good_is_tried_ever_less(run: Run) -> None:
    tried = [run.request(50, SLOW) != ALL_ON_EDGE for _ in range(2_000)]
    assert 1 <= sum(tried[50:500]) <= 12
    assert sum(tried[1_000:]) <= 4
