"""What stages need in memory, against running them by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.work.analysis import Analysis, measure
from dnnsplit_onnx.work.memory import StageMemory, stage_memory
from tests.conftest import light
from tests.strategies import random_memory

MODEL = """
m (float[2] x) => (float[2] y, float[8] early)
<float[2] w = {1, 2}, float[2] v = {3, 4}>
{
    a = Add(x, w)
    early = Concat<axis = 0>(a, a, a, a)
    b = Mul(a, w)
    c = Add(b, v)
    y = Sub(c, a)
}
"""


@pytest.fixture
def memory(graph_text) -> StageMemory:
    graph = graph_text(MODEL)
    return stage_memory(graph, bind_shapes(graph).nbytes)


@pytest.mark.parametrize(
    ("start", "stop", "nbytes"),
    [
        (0, 0, 0),  # nothing runs here
        (0, 1, 8 + 8 + 8),  # w, x, a
        (1, 2, 8 + 32),  # a, early: no weights
        (1, 3, 8 + 8 + 8 + 32),  # w; while b is made: a, b, and early, which lies here
        (2, 3, 8 + 8 + 8),  # early was made below this stage: it lies there
        (2, 4, 16 + 8 + 8 + 8),  # w, v; a passes through c
        (0, 5, 16 + 8 + 8 + 8 + 32),  # w once, though read twice
    ],
)
def test_by_hand(memory: StageMemory, start: int, stop: int, nbytes: int) -> None:
    assert memory.nbytes(start, stop) == nbytes


def simulate(analysis: Analysis, start: int, stop: int) -> int:
    """Runs a stage node by node, keeping sets of names."""
    graph = analysis.graph

    def size(name: str) -> int:
        return analysis.types.nbytes(name) or 0  # a Dropout's mask that nobody reads

    if start == stop:
        return 0
    made_before = set(graph.inputs) | {v for node in graph.nodes[:start] for v in node.outputs}
    here: set[str] = set()
    weights: set[str] = set()
    peak = 0
    for at in range(start, stop):
        node = graph.nodes[at]
        needed = {v for later in graph.nodes[at:] for v in later.inputs}
        held = {v for v in made_before | here if v in needed} | {v for v in here if v in graph.outputs}
        peak = max(peak, sum(size(v) for v in held | set(node.outputs)))
        here |= set(node.outputs)
        weights |= set(node.weights)
    return peak + sum(size(w) for w in weights)


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_against_a_simulation(name: str) -> None:
    graph = load_graph(light(name))
    analysis = measure(graph, bind_shapes(graph))
    rng = np.random.default_rng(0)
    for _ in range(60):
        start, stop = sorted(rng.integers(0, len(graph.nodes) + 1, 2).tolist())
        assert analysis.memory.nbytes(start, stop) == simulate(analysis, start, stop)


def test_first_starts_are_the_first_that_fit() -> None:
    for seed in range(300):
        rng = np.random.default_rng(seed)
        memory = random_memory(rng, int(rng.integers(0, 12)))
        limit = int(rng.integers(0, 40))
        first = memory.first_starts(limit)
        for stop in range(memory.size + 1):
            fits = [start for start in range(stop + 1) if memory.nbytes(start, stop) <= limit]
            assert first[stop] == fits[0]
            assert fits == list(range(fits[0], stop + 1))  # a shorter stage never needs more


def test_unknown_sizes_are_not_zero() -> None:
    held = np.array([1.0, np.inf, 1.0])
    memory = StageMemory(held, np.array([0, 0, 0, 1]), np.array([0]), np.array([np.inf]), ())
    assert memory.nbytes(0, 1) == 1
    assert memory.nbytes(0, 2) is None
    assert memory.nbytes(2, 3) is None
    assert memory.first_starts(1e12).tolist() == [0, 0, 2, 3]
