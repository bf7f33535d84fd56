"""On real models, the best of all downward-closed sets, listed one by one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.work.analysis import measure
from dnnsplit_onnx.work.orders import in_order
from tests.conftest import light


def all_closed_sets(graph: Graph) -> Iterator[int]:
    """Every downward-closed set of nodes, as bits of a number."""
    needs = [
        sum(1 << graph.producer[value] for value in set(node.inputs) if value in graph.producer)
        for node in graph.nodes
    ]
    level = {0}
    while level:
        yield from level
        level = {
            below | 1 << at
            for below in level
            for at, need in enumerate(needs)
            if not below >> at & 1 and need & below == need
        }


@pytest.mark.parametrize(
    "name", ["bvlc_alexnet", "squeezenet", "zfnet512", "vgg19", "resnet50", "inception_v1"]
)
def test_no_closed_set_of_a_real_model_is_better(name: str) -> None:
    graph = load_graph(light(name))
    analysis = measure(graph, bind_shapes(graph))
    readers: dict[str, int] = {}
    for at, node in enumerate(graph.nodes):
        for value in node.inputs:
            readers[value] = readers.get(value, 0) | 1 << at
    values = [
        (
            analysis.types.need_nbytes(value),
            1 << graph.producer[value] if value in graph.producer else 0,
            mask,
        )
        for value, mask in readers.items()
    ]
    flops = analysis.flops.tolist()
    points = []
    for below in all_closed_sets(graph):
        work = sum(flops[at] for at in range(len(flops)) if below >> at & 1)
        sent = sum(size for size, made, used in values if made & below == made and used & ~below)
        points.append((work, sent, below.bit_count() < len(flops)))
    assert len(points) > len(flops)
    work, sent, crosses = np.array(points, dtype=np.float64).T
    ordered = in_order(analysis, "envelope")
    rng = np.random.default_rng(0)
    for _ in range(5):
        slow, fast, mbps = 10 ** rng.uniform([0, 2, 0], [2, 4, 3])
        tiers = [{"name": "low", "gflops": float(slow)}, {"name": "high", "gflops": float(fast)}]
        topology = parse_topology(
            {"tier": tiers, "link": [{"bandwidth_mbps": float(mbps), "delay_ms": 1.0}]}, "t"
        )
        seconds = work / (slow * 1e9) + (work.max() - work) / (fast * 1e9)
        seconds += np.where(crosses > 0, 8 * sent / (mbps * 1e6) + 1e-3, 0.0)
        found = plan(ordered, topology, pareto=False)
        assert found.figures.latency_s == pytest.approx(seconds.min(), rel=1e-9)
        assert found.optimality == "dag"
