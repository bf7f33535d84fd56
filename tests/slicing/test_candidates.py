"""All ranges of the candidate cuts, on one file of weights."""

from __future__ import annotations

from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.errors import OutputError
from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.slicing import slice_all_candidates
from dnnsplit_onnx.slicing.candidates import tier_ranges
from dnnsplit_onnx.slicing.manifest import Manifest, load_manifest
from tests.slicing.chain import plan_at, run_chain, run_whole, same
from tests.slicing.constructs import CONSTRUCTS
from tests.slicing.weights import SIDE, attributes, layers, matrix, save

TIERS = ("edge", "near", "cloud")


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
@pytest.mark.parametrize("build", [layers, attributes])
def test_any_plan_over_the_cuts_can_run(build: object, external: bool, tmp_path: Path) -> None:
    path = save(build(), tmp_path / "source.onnx", external=external)  # type: ignore[operator]
    graph = load_graph(path)
    manifest = slice_all_candidates(graph, plan_at(graph, (1, 3), TIERS), [1, 3, 4], tmp_path / "out")
    assert load_manifest(tmp_path / "out") == manifest
    feeds = {"x": matrix(5)[:3], "p": np.array(True)}
    inputs = {name: feeds[name] for name in graph.inputs}
    expected = run_whole(path, inputs)
    for cuts in combinations_with_replacement((0, 1, 3, 4, len(graph.nodes)), 2):
        chosen = with_cuts(manifest, graph, cuts)
        actual = run_chain(tmp_path / "out", chosen, inputs)
        assert all(same(expected[name], actual[name]) for name in expected), cuts


def with_cuts(manifest: Manifest, graph: Graph, cuts: tuple[int, ...]) -> Manifest:
    """The manifest as if another plan were in force."""
    known = {(record.tier, record.start, record.stop): record for record in manifest.candidates}
    stages = plan_at(graph, cuts, TIERS).figures.stages
    return manifest.model_copy(update={"slices": tuple(known[s.tier, s.start, s.stop] for s in stages)})


def test_weights_are_written_once(tmp_path: Path) -> None:
    graph = load_graph(save(layers(), tmp_path / "source.onnx", external=False))
    slice_all_candidates(graph, plan_at(graph, (2, 4), TIERS), range(10), tmp_path / "out")
    files = [tmp_path / "out" / tier / "weights.data" for tier in TIERS]
    assert {file.stat().st_size for file in files} == {4 * SIDE * SIDE * 4}
    # A hard link would do, but onnx's checker takes it for an attack.
    assert {file.stat().st_nlink for file in files} == {1}
    for file in (tmp_path / "out").glob("*/*.onnx"):
        assert file.stat().st_size < SIDE * SIDE * 4
        onnx.checker.check_model(file)


def test_ranges_of_a_tier() -> None:
    cuts = [0, 2, 5]
    assert list(tier_ranges(cuts, bottom=True, top=False)) == [(0, 0), (0, 2), (0, 5)]
    assert list(tier_ranges(cuts, bottom=False, top=True)) == [(0, 5), (2, 5), (5, 5)]
    assert list(tier_ranges(cuts, bottom=True, top=True)) == [(0, 5)]
    assert len(list(tier_ranges(cuts, bottom=False, top=False))) == 6


def test_a_model_without_large_weights_has_no_file_of_them(tmp_path: Path) -> None:
    onnx.save(CONSTRUCTS["odd_outputs"]()[0], tmp_path / "source.onnx")
    graph = load_graph(tmp_path / "source.onnx")
    manifest = slice_all_candidates(graph, plan_at(graph, (1,)), [2], tmp_path / "out")
    assert not list((tmp_path / "out").rglob("weights.data"))
    assert all(not record.data for record in manifest.candidates)


def test_existing_output_needs_force(tmp_path: Path) -> None:
    graph = load_graph(save(layers(), tmp_path / "source.onnx", external=False))
    slice_all_candidates(graph, plan_at(graph, (2,)), [], tmp_path / "out")
    with pytest.raises(OutputError, match="output exists"):
        slice_all_candidates(graph, plan_at(graph, (2,)), [], tmp_path / "out")


def test_a_position_that_is_none(tmp_path: Path) -> None:
    graph = load_graph(save(layers(), tmp_path / "source.onnx", external=False))
    with pytest.raises(ValueError, match="not a range"):
        slice_all_candidates(graph, plan_at(graph, (2,)), [77], tmp_path / "out")
    assert not (tmp_path / "out").exists()
