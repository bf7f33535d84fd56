"""What only a GPU can show. Skipped, with the reason, where CUDA does not work.

python -m pytest -m cuda tests/test_cuda.py
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from dnnsplit_onnx.errors import DnnsplitError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.measuring.benchmark import bench
from dnnsplit_onnx.measuring.verification import verify
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.runtime.doctor import diagnose
from dnnsplit_onnx.runtime.inputs import generate, to_values
from dnnsplit_onnx.runtime.probe import run_probe
from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.conftest import light
from tests.slicing.chain import plan_at

pytestmark = pytest.mark.cuda
CUDA = SessionOptions(provider="cuda")
GRAPH = SessionOptions(provider="cuda", cuda_graph=True)


@functools.cache
def why_no_cuda() -> str | None:
    try:
        run_probe("cuda")
    except DnnsplitError as error:
        return f"no CUDA: {error.message}"
    return None


@pytest.fixture(autouse=True)
def _needs_cuda() -> None:
    if (reason := why_no_cuda()) is not None:
        pytest.skip(reason)


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    """SqueezeNet in three slices."""
    graph = load_graph(light("squeezenet"))
    third = len(graph.nodes) // 3
    slice_model(graph, plan_at(graph, (third, 2 * third)), tmp_path / "slices")
    return tmp_path / "slices"


def test_the_chain_on_cuda_is_near_the_whole_on_the_cpu(slices: Path) -> None:
    for cuda_graph in (False, True):
        found = verify(slices, light("squeezenet"), provider="cuda", cuda_graph=cuda_graph)
        assert found.passed
        assert found.provider == "cuda"
        assert all(place.memcpy_nodes == 0 for place in found.slices)


def test_values_between_slices_stay_on_the_device(slices: Path) -> None:
    manifest = load_manifest(slices)
    for options in (CUDA, GRAPH):
        chain = Chain.open(slices, lambda _, options=options: options)
        values = to_values(manifest.model.inputs, generate(manifest.model.inputs).values)
        for _ in range(3):
            made = chain.run_values(values)
        assert (chain.crossings.to_device, chain.crossings.to_host) == (1, 1)
        assert all(value.device_name() == "cpu" for value in made.values())
        inner = chain.stages[0][1]
        left = inner.run(values, on_device=inner.outputs)
        assert all(value.device_name() == "cuda" for value in left.values())


def test_replays_follow_their_inputs(slices: Path) -> None:
    manifest = load_manifest(slices)
    captured = Chain.open(slices, lambda _: GRAPH)
    plain = Chain.open(slices, lambda _: CUDA)
    for seed in range(4):
        given = generate(manifest.model.inputs, seed=seed).values
        for ours, theirs in zip(captured.run(given).values(), plain.run(given).values(), strict=True):
            assert np.allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_the_limit_on_memory_holds(slices: Path) -> None:
    too_little = SessionOptions(provider="cuda", memory_nbytes=1 << 20)
    ports = load_manifest(slices).model.inputs
    values = to_values(ports, generate(ports).values)

    def run() -> None:
        open_session(light("squeezenet"), too_little).run(values)

    with pytest.raises(DnnsplitError):
        run()


def test_bench_measures_the_device(slices: Path) -> None:
    report = bench(slices, provider="cuda", runs=20, model=light("squeezenet"))
    assert {part.provider for part in report.slices} == {"cuda"}
    assert report.chain is not None
    assert report.chain.copies == 0
    assert report.overhead is not None


def test_the_doctor_finds_it_well() -> None:
    found = diagnose()
    assert found.healthy
    assert "cuda" in found.runtime.usable
    assert found.driver.devices


def test_a_device_that_is_not_there_is_no_reason_to_use_the_cpu(
    monkeypatch: pytest.MonkeyPatch, slices: Path
) -> None:
    real = ort.InferenceSession

    def create(source: str, settings: object, providers: list[tuple[str, dict[str, object]]], **rest: object):  # type: ignore[no-untyped-def]
        (name, options), *others = providers
        return real(source, settings, providers=[(name, options | {"device_id": 63}), *others], **rest)

    monkeypatch.setattr(ort, "InferenceSession", create)
    with pytest.raises(DnnsplitError):
        open_session(light("squeezenet"), CUDA)
