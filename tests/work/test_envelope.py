"""The envelope against the hull of all downward-closed sets, and the orders made of it."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.work import envelope as envelope_module
from dnnsplit_onnx.work.analysis import Analysis, measure
from dnnsplit_onnx.work.cuts import UNKNOWN
from dnnsplit_onnx.work.envelope import contract, envelope
from dnnsplit_onnx.work.orders import in_order
from tests.big_models import long
from tests.conftest import light
from tests.dags import closed_sets, live_nbytes, random_workload, with_states

SEEDS = range(150)


def workload_of_seed(rng: np.random.Generator, most: int, seed: int) -> Analysis:
    """Of up to `most` - 1 nodes; every third has states."""
    analysis = random_workload(rng, int(rng.integers(1, most)))
    return with_states(rng, analysis) if seed % 3 == 0 else analysis


def point(analysis: Analysis, below: frozenset[int]) -> tuple[int, int]:
    return int(analysis.flops[sorted(below)].sum()), live_nbytes(analysis, below)


def lower_hull(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Corners of the lower left hull, from least work to fewest bytes."""
    hull: list[tuple[int, int]] = []
    for x, y in sorted(set(points)):
        if hull and y >= hull[-1][1]:
            continue
        while len(hull) > 1 and (hull[-1][0] - hull[-2][0]) * (y - hull[-2][1]) <= (
            (hull[-1][1] - hull[-2][1]) * (x - hull[-2][0])
        ):
            hull.pop()
        hull.append((x, y))
    return hull


@pytest.mark.parametrize("seed", SEEDS)
def test_corners_of_the_hull_are_there_and_nested(seed: int) -> None:
    rng = np.random.default_rng(seed)
    analysis = workload_of_seed(rng, 9, seed)
    cuts = envelope(analysis)
    assert cuts[0] == frozenset()
    assert cuts[-1] == frozenset(range(len(analysis.graph.nodes)))
    assert all(low < high for low, high in pairwise(cuts))
    closed = list(closed_sets(analysis))
    assert set(cuts) <= set(closed)
    found = {point(analysis, cut) for cut in cuts}
    hull = lower_hull([point(analysis, cut) for cut in closed])
    # Of sets with equal work and bytes any will do; the ends may be beaten at no work.
    assert set(hull[1:]) <= found
    assert hull[0] in found or hull[0][0] == 0
    # And from its last corner on, the hull of the cuts that keep the last node above.
    last = len(analysis.graph.nodes) - 1
    base = max((cut for cut in cuts[:-1] if not cut or point(analysis, cut) in hull), key=len)
    proper = lower_hull([point(analysis, cut) for cut in closed if base <= cut and last not in cut])
    assert set(proper[1:]) <= found


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_lose_no_minimum(seed: int) -> None:
    """For every lambda, some set made of whole blocks is as light as any."""
    rng = np.random.default_rng([seed, 1])
    analysis = workload_of_seed(rng, 8, seed)
    blocks = contract(analysis)
    points = [(point(analysis, cut), cut) for cut in closed_sets(analysis)]
    for work, nbytes in [(0, 1), (1, 0), (1, 1), (1, 3), (3, 1), (7, 2)]:
        weights = [(work * w + nbytes * d, cut) for (w, d), cut in points]
        whole = [
            weight for weight, cut in weights if cut == set(blocks.members({blocks.block[at] for at in cut}))
        ]
        assert min(whole) == min(weights)[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_envelope_of_blocks_is_that_of_nodes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of minimum cuts the smallest is taken, and it parts no block, however often they were contracted."""
    rng = np.random.default_rng([seed, 3])
    analysis = workload_of_seed(rng, 40, seed)
    cuts = envelope(analysis)
    monkeypatch.setattr(envelope_module, "contract", partial(contract, merge=False))
    assert envelope(analysis) == cuts


def test_residual_blocks_of_one_width_become_one(tmp_path: Path) -> None:
    graph = load_graph(long(tmp_path / "long.onnx", 1000))
    blocks = contract(measure(graph, bind_shapes(graph)))
    # Ten widths, each after a node that halves the last one; each residual block reads what it passes on.
    assert len(graph.nodes) == 1010 - 1
    assert len(blocks.work) <= 2 * 10
    assert sum(blocks.work) == sum(measure(graph, bind_shapes(graph)).flops.tolist())


@pytest.mark.parametrize("seed", SEEDS)
def test_order_is_runnable_and_has_the_envelope_as_prefixes(seed: int) -> None:
    rng = np.random.default_rng([seed, 2])
    analysis = workload_of_seed(rng, 12, seed)
    ordered = in_order(analysis, "envelope")  # `reordered` refuses what cannot run
    place = {node.name: at for at, node in enumerate(ordered.graph.nodes)}
    for cut in envelope(analysis):
        assert {place[analysis.graph.nodes[at].name] for at in cut} == set(range(len(cut)))
    assert [node.name for node in in_order(analysis, "envelope").graph.nodes] == list(place)
    assert ordered.flops.sum() == analysis.flops.sum()
    assert in_order(analysis, "file") is analysis


def test_order_never_holds_more_than_the_file_between_envelope_cuts() -> None:
    for name in ("inception_v1", "resnet50", "shufflenet"):
        graph = load_graph(light(name))
        analysis = measure(graph, bind_shapes(graph))
        ordered = in_order(analysis, "envelope")
        sizes = [len(cut) for cut in envelope(analysis)]
        before, after = analysis.cut_nbytes(), ordered.cut_nbytes()
        assert UNKNOWN not in before
        assert (before[sizes] >= after[sizes]).all()
        assert after.sum() <= before.sum()


def test_an_order_of_no_name() -> None:
    analysis = random_workload(np.random.default_rng(5), 9)
    with pytest.raises(InputError, match="no node order is named `envelop`") as error:
        in_order(analysis, "envelop")
    assert error.value.hint == "did you mean `envelope`? known node orders: envelope, file"


def test_the_files_order_comes_back() -> None:
    analysis = random_workload(np.random.default_rng(5), 9)
    again = in_order(in_order(analysis, "envelope"), "file")
    assert again.graph.nodes == analysis.graph.nodes
    assert (again.work, again.order) == (analysis.work, "file")


def test_values_of_unknown_size_never_cross(graph_text) -> None:
    graph = graph_text(
        """m (float[4] x) => (float[n] y) {
            [a] p = Exp(x)
            [b] q = NonZero(p)
            [c] r = Cast<to = 1>(q)
            [d] y = Flatten<axis = 0>(r)
        }""",
    )
    analysis = measure(graph, bind_shapes(graph))
    for cut in envelope(analysis):
        assert len(cut) in (0, 1, 4)


DYNAMIC = """
g (float[batch, 4, side, side] x) => (float[batch, 4] y)
{
   b = Relu (x)
   a = MaxPool <kernel_shape = [4, 4], strides = [4, 4]> (x)
   c = MaxPool <kernel_shape = [4, 4], strides = [4, 4]> (b)
   d = Add (a, c)
   y = ReduceMean <axes = [2, 3], keepdims = 0> (d)
}
"""


def test_positions_mean_the_same_whatever_is_bound(graph_text) -> None:
    graph = graph_text(DYNAMIC)
    orders = []
    for bindings in ({}, {"batch": 1, "side": 32}, {"batch": 7, "side": 4}):
        ordered = in_order(measure(graph, bind_shapes(graph, bindings)), "envelope")
        assert ordered.order == "envelope"
        orders.append([node.index for node in ordered.graph.nodes])
    assert orders[0] == orders[1] == orders[2]
