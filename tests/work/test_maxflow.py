"""Minimum cuts, against trying every cut and against networkx."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from dnnsplit_onnx.work.maxflow import Network


def random_edges(rng: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
    pairs = rng.integers(0, count, (3 * count, 2)).tolist()
    return [(tail, head, int(rng.integers(0, 9))) for tail, head in pairs if tail != head]


def solve(count: int, edges: list[tuple[int, int, int | None]], rank: list[float]) -> tuple[int, list[bool]]:
    network = Network(rank)
    for edge in edges:
        network.add(*edge)
    return network.minimum_cut()


@pytest.mark.parametrize("seed", range(80))
def test_every_cut_of_small_networks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 8))
    edges = random_edges(rng, count)
    flow, below = solve(count, edges, rng.random(count).tolist())
    weights = []
    for bits in range(2 ** (count - 2)):
        side = [True, False, *(bool(bits >> at & 1) for at in range(count - 2))]
        weights.append((sum(c for tail, head, c in edges if side[tail] and not side[head]), sum(side)))
    assert (flow, sum(below)) == min(weights)  # of minimum cuts, the smallest side


@pytest.mark.parametrize("seed", range(20))
def test_against_networkx_with_numbers_beyond_64_bits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, huge = 40, 2**70 + 1
    edges = [(tail, head, c * huge + c) for tail, head, c in random_edges(rng, count)]
    flow, _ = solve(count, edges, [0.0] * count)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(count))
    for tail, head, capacity in edges:
        before = graph.get_edge_data(tail, head, {"capacity": 0})["capacity"]
        graph.add_edge(tail, head, capacity=before + capacity)
    assert flow == nx.maximum_flow_value(graph, 0, 1)


def test_never_cuts_an_infinite_edge() -> None:
    flow, below = solve(4, [(0, 2, 5), (2, 3, None), (3, 1, 7)], [0, 0, 1, 2])
    assert (flow, below) == (5, [True, False, False, False])
    with pytest.raises(ValueError, match="no cut"):
        solve(3, [(0, 2, None), (2, 1, None)], [0, 0, 1])
