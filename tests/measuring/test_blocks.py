"""Segments of a profile end where blocks do."""

from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx import analyse
from dnnsplit_onnx.measuring.profiling.blocks import MOST_SEGMENTS, block_ends, with_blocks
from dnnsplit_onnx.measuring.profiling.segments import measure_segments, segment_cuts
from dnnsplit_onnx.models import model_path
from dnnsplit_onnx.models.decoder import decoder
from dnnsplit_onnx.work.cuts import crossing_values


@pytest.mark.parametrize("name", ["tiny_residual", "tiny_transformer", "light_squeezenet"])
def test_one_value_crosses_where_a_block_ends(name: str) -> None:
    analysis = analyse(model_path(name))
    ends = block_ends(analysis)
    assert ends
    for position in range(1, len(analysis.graph.nodes)):
        crossing = crossing_values(analysis.graph, position, "live")
        assert (position in ends) == (len(crossing) == 1), position


def test_blocks_of_a_decoder_end_beside_its_mask_and_caches() -> None:
    analysis = analyse(decoder(), {"batch": 1, "sequence": 1, "past_sequence": 8})
    graph = analysis.graph
    ends = {graph.nodes[at - 1].name for at in block_ends(analysis)}
    assert {"layer0_add2", "layer1_add2", "layer2_add2"} <= ends
    inside = next(at for at, node in enumerate(graph.nodes) if node.name == "layer1_scores")
    assert inside + 1 not in block_ends(analysis)


def test_no_segment_has_much_of_the_work_where_blocks_are_small() -> None:
    analysis = analyse(model_path("light_resnet50"))
    candidates = segment_cuts(analysis)
    cuts = with_blocks(analysis, candidates)
    assert set(candidates) <= set(cuts)
    assert len(candidates) < len(cuts) < MOST_SEGMENTS
    shares = np.diff(analysis.flops_below[[0, *cuts, len(analysis.graph.nodes)]]) / analysis.flops.sum()
    before = np.diff(analysis.flops_below[[0, *candidates, len(analysis.graph.nodes)]]) / analysis.flops.sum()
    assert shares.max() < 0.13 < before.max()


def test_parts_are_timed_at_candidates_alone() -> None:
    analysis = analyse(model_path("tiny_transformer"))
    profile = measure_segments(analysis, "edge", runs=2, warmup=0)
    stops = [segment.stop for segment in profile.segments[:-1]]
    assert stops == with_blocks(analysis, segment_cuts(analysis))
    assert [part.position for part in profile.parts] == segment_cuts(analysis)
    given = measure_segments(analysis, "edge", positions=[10], runs=2, warmup=0)
    assert [segment.stop for segment in given.segments[:-1]] == [10]
