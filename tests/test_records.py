"""Whatever reports hands out rows for a table: a list of dictionaries of one kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dnnsplit_onnx import Link, Tier, Topology, analyse, compare, inspect, plan, sweep
from dnnsplit_onnx.measuring.verification import verify
from dnnsplit_onnx.planning.sweeping import Axis
from tests.running.folders import PERCEPTRON, split, with_weights

LINE = Topology(tiers=[Tier("a", gflops=1), Tier("b", gflops=9)], links=[Link(bandwidth_mbps=8)])


def test_rows(model_text: Callable[..., Path]) -> None:
    path = with_weights(model_text(PERCEPTRON))
    analysis = analyse(path)
    rates = (1.0, 2.0, 4.0)
    tables = {
        "inspect": (inspect(analysis).records(), 3),
        "plan": (plan(analysis, LINE).records(), 3),
        "sweep": (sweep(analysis, LINE, [Axis("link.0.bandwidth_mbps", rates)]).records(), 3),
        "compare": (compare(analysis, LINE, ["exact", "dads"]).records(), 2),
        "verify": (verify(split(path, 1)).records(), 1),
    }
    for name, (rows, count) in tables.items():
        assert len(rows) == count, name
        assert all(isinstance(key, str) for row in rows for key in row), name
    assert [row["link.0.bandwidth_mbps"] for row in tables["sweep"][0]] == list(rates)
    assert [row["name"] for row in tables["inspect"][0]] == [node.name for node in analysis.graph.nodes]
