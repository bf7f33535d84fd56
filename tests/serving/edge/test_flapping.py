"""Noisy links and busy machines, simulated: decisions as good as with a fixed threshold, and far fewer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.planning.choosing import problem_of
from dnnsplit_onnx.serving.edge import adaptive as adapting
from dnnsplit_onnx.serving.edge.adaptive import Adaptive
from dnnsplit_onnx.serving.tier.cuts import Cuts
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire.trace import TierTrace
from dnnsplit_onnx.slicing.manifest import load_manifest
from dnnsplit_onnx.work.analysis import measure
from tests.serving.edge.test_adaptive import NBYTES, TOPOLOGY, shrinking  # noqa: F401  # a fixture
from tests.serving.wire.test_estimate import hop

PERIOD_S = 0.2


class FixedShare(Adaptive):
    """What it is compared with: any gain of a tenth is worth a change."""

    def _least_gain(self, cuts: Cuts) -> float:  # noqa: ARG002
        return 0.10


@dataclass
class Outcome:
    changes: int
    seconds: float


def simulate(
    kind: type[Adaptive],
    folder: Path,
    mbps_at: Callable[[int], float],
    noise: float,
    monkeypatch: pytest.MonkeyPatch,
    requests: int = 400,
) -> Outcome:
    """Requests over a link whose transfers waver, on an edge whose runs do."""
    graph = load_graph(folder / "model.onnx")
    topology = parse_topology(TOPOLOGY, "t")
    problem = problem_of(measure(graph, bind_shapes(graph)), topology, "latency")
    chooser = kind(Routes(load_manifest(folder / "out")), problem)
    chooser.close()  # it decides when it is told to, below
    clock = [0.0]
    monkeypatch.setattr(adapting.time, "monotonic", lambda: clock[0])
    rng, changes, total, last = np.random.default_rng(7), 0, 0.0, chooser.choose(1)
    for at in range(requests):
        clock[0] += PERIOD_S
        cuts = chooser.choose(1)
        assert cuts is not None
        changes, last = changes + (cuts != last), cuts
        true = topology.model_copy(
            update={"links": (topology.links[0].model_copy(update={"bandwidth_mbps": mbps_at(at)}),)}
        )
        total += problem_of(problem.analysis, true, "latency").figures(cuts).latency_s  # type: ignore[arg-type]
        told = hop(NBYTES, mbps_at(at) * rng.lognormal(0.0, noise), 1.0)
        edge_s = float(problem.costs.seconds_below[0][cuts[0]]) * rng.lognormal(0.0, noise / 2)
        chooser.observe(cuts, (TierTrace("edge", 0, edge_s, told.total_s, hop=told), *told.tiers), told)
        chooser._plan_again()
    monkeypatch.undo()
    return Outcome(changes, total)


STEPS = (50.0, 5.0, 50.0, 5.0)


@pytest.mark.parametrize(
    ("mbps_at", "least", "most"),
    [
        pytest.param(lambda _: 20.0, 0, 23, id="where two cuts are as good"),
        pytest.param(lambda _: 30.0, 0, 2, id="where one is better"),
        pytest.param(lambda at: STEPS[at // 100], 3, 9, id="steps"),
        pytest.param(lambda at: 20 + 15 * np.sin(at / 20), 2, 16, id="waves"),
    ],
)
def test_decisions_are_as_good_and_far_fewer(
    shrinking: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    mbps_at: Callable[[int], float],
    least: int,
    most: int,
) -> None:
    ours = simulate(Adaptive, shrinking, mbps_at, 0.35, monkeypatch)
    fixed = simulate(FixedShare, shrinking, mbps_at, 0.35, monkeypatch)
    assert ours.seconds <= 1.05 * fixed.seconds
    assert least <= ours.changes <= most
    assert ours.changes <= max(least, fixed.changes / 2)


def test_without_noise_steps_are_followed_at_once(
    shrinking: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = simulate(Adaptive, shrinking, lambda at: STEPS[at // 100], 0.0, monkeypatch)
    assert found.changes == 3
