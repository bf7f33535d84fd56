"""Codes judged before there are slices: what the slices then do, and plans that are set aside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.measuring.judging import Judge
from dnnsplit_onnx.measuring.verification import verify
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.codes import LOSSY
from tests.slicing.stacks import Stack, image


def tiers(count: int = 2, mbps: float = 1.0, **link: object) -> Topology:
    """Ever faster tiers, joined by slow links."""
    return Topology(
        tiers=[Tier(name=f"t{at}", gflops=0.01 * 1000**at) for at in range(count)],
        links=[Link(bandwidth_mbps=mbps, **link) for _ in range(count - 1)],  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[Analysis, Path]:
    """A stack of layers, and samples for it."""
    folder = tmp_path_factory.mktemp("stack")
    rng = np.random.default_rng(11)
    model = Stack(rng).grow(9).model()
    onnx.save(model, folder / "model.onnx")
    samples = np.stack([image(model, rng) for _ in range(3)])
    np.savez(folder / "samples.npz", **{model.graph.input[0].name: samples})
    return analyse(folder / "model.onnx"), folder / "samples.npz"


@pytest.mark.parametrize("code", LOSSY)
def test_a_judgement_is_what_the_slices_do(stack: tuple[Analysis, Path], code: str, tmp_path: Path) -> None:
    analysis, samples = stack
    size = len(analysis.graph.nodes)
    made = plan(analysis, tiers(3), cuts=[size // 3, 2 * size // 3], codes=[code])
    assert made.codes == (code, code)
    said = Judge(analysis, samples).error(made.cuts, made.codes)
    slice_model(analysis.graph, made, tmp_path / "slices")
    proof = verify(tmp_path / "slices", samples=samples)
    assert proof.passed
    assert proof.coded_output is not None
    assert said.samples == proof.coded_output.samples == 3
    assert said.relative == pytest.approx(proof.coded_output.relative, rel=1e-3, abs=1e-6)
    assert said.relative > 0
    data = made.to_dict()
    assert all(
        row["raw_nbytes"] > row["nbytes"] and row["code"] == code
        for link in data["links"]
        for row in link["coded"]
    )
    assert data["links"][0]["nbytes"] >= sum(row["nbytes"] for row in data["links"][0]["coded"])


def test_what_breaks_the_tolerance_is_set_aside(stack: tuple[Analysis, Path]) -> None:
    analysis, samples = stack
    free = plan(analysis, tiers(), codes=LOSSY)
    assert free.codes != ("raw",)
    error = Judge(analysis, samples).error(free.cuts, free.codes).relative
    kept = plan(analysis, tiers(), codes=LOSSY, accept=Judge(analysis, samples, tolerance=error))
    assert (kept.cuts, kept.codes) == (free.cuts, free.codes)
    judge = Judge(analysis, samples, tolerance=error * 0.999)
    made = plan(analysis, tiers(), codes=LOSSY, accept=judge)
    assert made.latency_s > free.latency_s
    assert (made.cuts, made.codes) != (free.cuts, free.codes)
    assert any("set aside" in note and free.codes[0] in note for note in made.notes)
    # No choice of one cut and one code is better, and within the tolerance.
    for cut in range(len(analysis.graph.nodes)):
        other = plan(analysis, tiers(), cuts=[cut], codes=LOSSY, accept=judge)
        assert other.latency_s >= made.latency_s * (1 - 1e-12)


def test_nothing_is_coded_that_nobody_allowed(stack: tuple[Analysis, Path]) -> None:
    analysis, _ = stack
    assert plan(analysis, tiers()).codes == ("raw",)
    assert plan(analysis, tiers(codes=("raw",)), codes=LOSSY).codes == ("raw",)
    assert plan(analysis, tiers(codes=("fp16",)), codes=LOSSY).codes in (("raw",), ("fp16",))


def test_samples_must_fit(stack: tuple[Analysis, Path], tmp_path: Path) -> None:
    analysis, _ = stack
    np.savez(tmp_path / "wrong.npz", other=np.zeros(3, np.float32))
    judge = Judge(analysis, tmp_path / "wrong.npz", tolerance=1.0)
    with pytest.raises(InputError, match="no array for an input"):
        judge.error((3,), ("uint8",))
