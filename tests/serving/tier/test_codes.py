"""Slices with codes behind servers: what one process computes, and refusals that name the value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.serving.wire.errors import ServingError
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.codes import LOSSY
from tests.serving.conftest import CUTS, MODEL, Network, inputs, same, topology


def coded(folder: Path, cuts: tuple[int, ...], code: str) -> Path:
    """The slices of a plan with a code wherever it applies."""
    onnx.save(onnx.parser.parse_model(MODEL), folder / "model.onnx")
    analysis = analyse(folder / "model.onnx", {"B": 2} if "[B" in MODEL else {}, order="file")
    machines = parse_topology(topology(mbps=1e-4), "tiers")
    made = plan(analysis, machines, cuts=cuts, codes=[code], pareto=False)
    assert made.codes == (code,) * len(cuts)
    slice_model(analysis.graph, made, folder / "out")
    return folder / "out"


@pytest.mark.parametrize("code", LOSSY)
def test_served_slices_compute_what_the_chain_does(network: Network, code: str, tmp_path: Path) -> None:
    folder = coded(tmp_path, CUTS, code)
    edge = network.edge(network.chain(folder=folder), folder=folder)
    for seed in range(2):
        want = Chain.open(folder).run(inputs(seed))
        assert same(edge.infer(inputs(seed)).outputs, want)


@pytest.mark.parametrize("cuts", [(CUTS[0], CUTS[0]), (0, CUTS[0])])
def test_a_tier_without_work_passes_codes_on(network: Network, cuts: tuple[int, int], tmp_path: Path) -> None:
    folder = coded(tmp_path, cuts, "uint8")
    edge = network.edge(network.chain(folder=folder), folder=folder)
    assert same(edge.infer(inputs()).outputs, Chain.open(folder).run(inputs()))


def test_what_a_code_cannot_hold_is_an_error_that_names_it(network: Network, tmp_path: Path) -> None:
    folder = coded(tmp_path, CUTS, "uint8")
    edge = network.edge(network.chain(folder=folder), folder=folder)
    bad = {
        name: np.full_like(array, np.nan) if array.dtype.kind == "f" else array
        for name, array in inputs().items()
    }
    with pytest.raises(ServingError, match="holds what uint8 cannot"):
        edge.infer(bad)
    assert same(edge.infer(inputs()).outputs, Chain.open(folder).run(inputs()))
