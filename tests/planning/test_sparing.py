"""What a plan says it sends that another form of the model would not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dnnsplit_onnx import Link, Tier, Topology, analyse, plan
from dnnsplit_onnx.graph.copies import mark_copy
from dnnsplit_onnx.planning.sparing import sparing_notes

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "elsewhere" : 1]>'
NORMS = (
    "{share} of what crosses `{link}` are norms of sums that cross too: "
    "`dnnsplit-onnx convert MODEL --split-norms -o FILE` makes a model that sends the sums alone"
)
MASKS = (
    "{share} of what crosses `{link}` are masks and positions: `dnnsplit-onnx convert MODEL --copy-masks "
    "-o FILE` makes a model that makes them anew above, where that sends less"
)
AB, BC = "a` to `b", "b` to `c"


def said(model: onnx.ModelProto, *cuts: int) -> tuple[str, ...]:
    tiers = [Tier(name, gflops=1) for name in "abc"[: len(cuts) + 1]]
    machines = Topology(tiers=tiers, links=[Link(bandwidth_mbps=10)] * len(cuts))
    analysis = analyse(model, order="file")
    chosen = plan(analysis, machines, cuts=cuts, pareto=False)
    notes = sparing_notes(chosen.figures, analysis)
    assert set(notes) <= set(chosen.notes)
    return notes


def parsed(graph: str, **weights: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"{HEAD} {graph}")
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return model


def fused(op_type: str, reads: str) -> onnx.ModelProto:
    """A fused sum and norm, and what reads them three nodes further on."""
    simple = op_type == "SkipSimplifiedLayerNormalization"
    graph = f"""g (float[1, 2, 8] x, float[1, 2, 8] skip) => (float[1, 2, 8] y) {{
        left = Relu(x)
        norm, mean, spread, sum = com.microsoft.{op_type}(left, skip, gamma{"" if simple else ", beta"})
        other = Neg(left)
        {reads}
    }}"""
    ones = np.ones(8, np.float32)
    model = parsed(graph, gamma=ones, **({} if simple else {"beta": ones}))
    model.graph.node[1].output[1:3] = [""] * 2  # nobody asks for these
    return model


@pytest.mark.parametrize("op_type", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
def test_norms_that_cross_beside_their_sums(op_type: str) -> None:
    model = fused(op_type, "a = Add(norm, other)  b = Neg(sum)  y = Mul(a, b)")
    assert said(model, 3) == (NORMS.format(share="33%", link=AB),)
    # Above, what was made of the norm crosses beside the sum, and no norm.
    assert said(model, 4) == ()


@pytest.mark.parametrize("reads", ["y = Add(norm, other)", "y = Add(sum, other)"])
def test_a_norm_or_a_sum_alone_is_what_has_to_cross(reads: str) -> None:
    assert said(fused("SkipLayerNormalization", reads), 3) == ()


def test_a_norm_that_is_not_fused_is_no_matter_of_this() -> None:
    graph = """g (float[2, 8] x) => (float[2, 8] y) {
        norm, mean = LayerNormalization(x, gamma)
        a = Add(norm, mean)
        y = Neg(a)
    }"""
    assert said(parsed(graph, gamma=np.ones(8, np.float32)), 1) == ()


def masked(reals: int = 8, *, copied: bool = False) -> onnx.ModelProto:
    """Eight bytes of a position beside reals, over two nodes."""
    model = parsed(f"""g (float[{reals}] x, int64[1] i) => (float[{reals}] y) {{
        place = Neg(i)
        a = Relu(x)
        b = Neg(a)
        c = Cast<to=1>(place)
        y = Add(b, c)
    }}""")
    if copied:
        mark_copy(model.graph.node[0])
    return model


def test_masks_and_positions_are_told_of_link_by_link() -> None:
    assert said(masked(), 2, 3) == (
        MASKS.format(share="20%", link=AB),
        MASKS.format(share="20%", link=BC),
    )
    # The input itself crosses at first: that is the least there is, and costs nothing to make.
    assert said(masked(), 0) == ()


def test_what_crosses_alone_has_to() -> None:
    model = parsed("g (int64[1] i) => (float[1] y) { place = Neg(i)  a = Cast<to=1>(place)  y = Exp(a) }")
    assert said(model, 1) == ()


def test_a_model_whose_masks_are_copied_is_left_alone() -> None:
    assert said(masked(copied=True), 2) == ()


@pytest.mark.parametrize(("reals", "is_told"), [(198, True), (199, False)])
def test_what_is_little_is_not_worth_a_sentence(reals: int, is_told: bool) -> None:
    assert said(masked(reals), 2) == ((MASKS.format(share="1%", link=AB),) if is_told else ())


def test_where_some_size_is_unknown_no_share_is() -> None:
    model = parsed("""g (float[8] x, int64[1] i) => (float[8] y, float[N] odd) {
        place = Neg(i)
        a = Relu(x)
        b = Neg(a)
        c = Cast<to=1>(place)
        y = Add(b, c)
        odd = elsewhere.Strange(b)
    }""")
    machines = Topology(tiers=[Tier("a", gflops=1), Tier("b", gflops=1)], links=[Link(bandwidth_mbps=10)])
    analysis = analyse(model, order="file")
    figures = plan(analysis, machines, cuts=(2,), pareto=False).figures
    assert sparing_notes(figures, analysis) == (MASKS.format(share="20%", link=AB),)
    (link,) = figures.links
    unknown = replace(figures, links=(replace(link, values=(*link.values, "odd")),))
    assert sparing_notes(unknown, analysis) == ()


def test_both_kinds_beside_each_other() -> None:
    graph = """g (float[1, 2, 8] x, float[1, 2, 8] skip, int64[1] i) => (float[1, 2, 8] y) {
        place = Neg(i)
        norm, mean, spread, sum = com.microsoft.SkipSimplifiedLayerNormalization(x, skip, gamma)
        a = Relu(norm)
        b = Add(a, sum)
        c = Cast<to=1>(place)
        y = Add(b, c)
    }"""
    assert said(parsed(graph, gamma=np.ones(8, np.float32)), 2) == (
        NORMS.format(share="47%", link=AB),
        MASKS.format(share="6%", link=AB),
    )
