"""Every construct, cut everywhere in two and in three, equals the whole bit for bit."""

from __future__ import annotations

from itertools import combinations_with_replacement
from pathlib import Path

import onnx
import pytest

from dnnsplit_onnx.graph.graph import load_graph
from tests.slicing.chain import check_cut, reference, session
from tests.slicing.constructs import CONSTRUCTS, REFERENCE_ONLY

# onnx's checker demands a shape of every input. That of a loop's state may change from one
# iteration to the next, so nobody knows even its rank, and none is written. (Of DictVectorizer
# onnx could know, and does not.)
_UNKNOWN_RANK = {"loop_with_captures", "map_input_and_output"}


@pytest.mark.parametrize("name", [*CONSTRUCTS, *REFERENCE_ONLY])
def test_every_cut_in_two_and_three(name: str, tmp_path: Path) -> None:
    built, feeds = (CONSTRUCTS | REFERENCE_ONLY)[name]()
    load = session if name in CONSTRUCTS else reference
    path = tmp_path / "source.onnx"
    onnx.save(built, path)
    valid = _passes_checker(path) and name not in _UNKNOWN_RANK
    graph = load_graph(path)
    positions = range(len(graph.nodes) + 1)
    cuts = [(at,) for at in positions] + list(combinations_with_replacement(positions, 2))
    for cut in cuts:
        manifest = check_cut(path, cut, feeds, tmp_path / "out", graph=graph, load=load)
        for record in manifest.slices:
            if record.file is not None and valid:
                onnx.checker.check_model(tmp_path / "out" / record.file)


def _passes_checker(path: Path) -> bool:
    try:
        onnx.checker.check_model(path)
    except onnx.checker.ValidationError:
        return False
    return True
