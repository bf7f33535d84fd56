"""Slices with codes behind servers: what one process computes, and refusals that name the value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.planning.coding import choices_at
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.serving.tier.cuts import Cuts, format_cuts, parse_cuts, positions
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire.errors import ProtocolError, ServingError
from dnnsplit_onnx.slicing import slice_all_candidates, slice_model
from dnnsplit_onnx.slicing.manifest import load_manifest
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


@pytest.fixture(scope="module")
def all_coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slices of all cuts in all of two codes, laid down for a plan without any."""
    folder = tmp_path_factory.mktemp("all")
    onnx.save(onnx.parser.parse_model(MODEL), folder / "model.onnx")
    analysis = analyse(folder / "model.onnx", {"B": 2}, order="file")
    machines = parse_topology(topology(), "tiers").with_codes(("fp16", "uint8"))
    made = plan(analysis, parse_topology(topology(), "tiers"), cuts=CUTS, pareto=False)
    choices = choices_at(analysis, machines, range(8))
    slice_all_candidates(analysis.graph, made, range(8), folder / "out", codes=choices)
    return folder / "out"


@pytest.mark.parametrize(
    "cuts", [((2, "uint8"), 4), ((2, "fp16"), (4, "uint8")), ((0, "uint8"), (0, "uint8"))]
)
def test_the_code_travels_with_the_request(
    network: Network, all_coded: Path, cuts: Cuts, tmp_path: Path
) -> None:
    edge = network.edge(network.chain(folder=all_coded), folder=all_coded)
    edge.prepare(cuts)
    answer = edge.infer(inputs(), cuts=cuts)
    assert answer.cuts == cuts
    # What the slices of a plan with these very codes compute.
    onnx.save(onnx.parser.parse_model(MODEL), tmp_path / "model.onnx")
    analysis = analyse(tmp_path / "model.onnx", {"B": 2}, order="file")
    told = topology(mbps=1e-4)
    codes = [() if isinstance(cut, int) else (cut[1],) for cut in cuts]
    told["link"] = [{**link, "codes": codes[at]} for at, link in enumerate(told["link"])]  # type: ignore[arg-type]
    made = plan(analysis, parse_topology(told, "t"), cuts=positions(cuts), pareto=False)
    slice_model(analysis.graph, made, tmp_path / "out")
    assert same(answer.outputs, Chain.open(tmp_path / "out").run(inputs()))
    assert not same(edge.infer(inputs()).outputs, answer.outputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("cuts", [((2, "uint8-channel"), 4), ((2, "uint8"), (2, "fp16")), ((7, "uint8"), 7)])
def test_codes_without_slices_are_refused(all_coded: Path, cuts: Cuts) -> None:
    routes = Routes(load_manifest(all_coded))
    assert not routes.has(cuts)
    with pytest.raises(ProtocolError, match="no slice of nodes"):
        routes.route(cuts)


@pytest.mark.parametrize("text", ["2:", ":uint8", "2:jpeg", "2:uint8:uint8", "2:uint8,"])
def test_what_are_no_cuts_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="not a list of positions"):
        parse_cuts(text)


def test_cuts_read_as_they_are_written() -> None:
    cuts: Cuts = ((2, "uint8"), 4, (5, "raw"))
    assert parse_cuts(format_cuts(cuts)) == cuts
