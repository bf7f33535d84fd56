"""Captured runs: the buffers and their order, for real, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from dnnsplit_onnx.errors import InputError, ModelError
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.runtime.cudagraph import Replay, why_not
from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session
from dnnsplit_onnx.runtime.values import to_value
from tests.providers import pretend_cuda
from tests.running.folders import PERCEPTRON, split, with_weights

Write = Callable[..., Path]
GRAPH = SessionOptions(provider="cuda", cuda_graph=True)


@pytest.fixture
def model(model_text: Write) -> Path:
    return with_weights(model_text(PERCEPTRON))


def inputs(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.standard_normal((2, 8)).astype(np.float32) for _ in range(count)]


def plain(model: Path) -> Any:
    return ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])


def test_replays_give_what_plain_runs_give(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pretend_cuda(monkeypatch)
    session = open_session(model, GRAPH)
    assert made[0]["enable_cuda_graph"] == "1"
    assert session.captured
    given = inputs(4)
    kept = [session.run({"x": to_value(ort, x)})["y"] for x in given]
    for x, value in zip(given, kept, strict=True):  # earlier results outlive later runs
        assert np.array_equal(value.numpy(), plain(model).run(None, {"x": x})[0])
    assert (session.crossings.to_device, session.crossings.to_host) == (0, 1)


def test_the_first_run_is_not_captured_and_all_others_are(model: Path) -> None:
    session = plain(model)
    graphs: list[str] = []

    class Options(ort.RunOptions):  # type: ignore[misc]
        def add_run_config_entry(self, key: str, value: str) -> None:
            graphs.append(value)
            super().add_run_config_entry(key, value)

    module: Any = type("Module", (), {"OrtValue": ort.OrtValue, "RunOptions": Options})
    replay = Replay(module, session, "cpu")
    for x in inputs(3):
        replay.run({"x": to_value(ort, x)}, ())
    assert graphs == ["-1", "1", "1"]


def test_memory_stays_where_it_was_captured(model: Path) -> None:
    replay = Replay(ort, plain(model), "cpu")
    buffers = {replay.run({"x": to_value(ort, x)}, {"y"})[0].data_ptr() for x in inputs(3)}
    assert len(buffers) == 1
    other = Replay(ort, plain(model), "cpu")
    x = to_value(ort, inputs(1)[0])
    assert other.run({"x": x}, ())[0].data_ptr() not in buffers


def test_another_shape_is_refused(model_text: Write) -> None:
    path = model_text("n (float[N, 2] x) => (float[N, 2] y) { y = Neg(x) }")
    replay = Replay(ort, plain(path), "cpu")
    replay.run({"x": to_value(ort, np.zeros((1, 2), np.float32))}, ())
    with pytest.raises(ValueError, match=r"input `x` has shape \[3, 2\].*made for \[1, 2\]"):
        replay.run({"x": to_value(ort, np.zeros((3, 2), np.float32))}, ())


def test_another_type_is_refused_and_not_read_as_the_right_one(model: Path) -> None:
    replay = Replay(ort, plain(model), "cpu")
    replay.run({"x": to_value(ort, inputs(1)[0])}, ())
    with pytest.raises(ValueError, match=r"input `x` is tensor\(double\), and has to be tensor\(float\)"):
        replay.run({"x": to_value(ort, inputs(1)[0].astype(np.float64))}, ())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            "n (float[N, 2] x) => (float[N, 2] y) { y = Neg(x) }",
            "dimension `N` of input `x` is not fixed",
        ),
        (
            "n (string[2] x) => (string[2] y) { y = Identity(x) }",
            r"input `x` is of type tensor\(string\)",
        ),
        (
            "n (float[4] x) => (seq(float[N]) y) { y = SplitToSequence(x) }",
            r"output `y` is of type seq\(tensor\(float\)\)",
        ),
    ],
)
def test_what_cannot_be_captured_is_refused_with_the_reason(
    model_text: Write, body: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda(monkeypatch)
    with pytest.raises(InputError, match=f"cannot run as a CUDA graph: {why}") as caught:
        open_session(model_text(body), GRAPH)
    assert "--cuda-graph" in (caught.value.hint or "")


def test_fixed_tensors_can_be_captured(model: Path) -> None:
    assert why_not(plain(model)) is None


def test_the_cpu_has_no_cuda_graphs(model: Path) -> None:
    with pytest.raises(InputError, match="runs on the CPU, where there are no CUDA graphs"):
        open_session(model, SessionOptions(cuda_graph=True))


def test_a_failing_replay_is_a_clear_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch)
    session = open_session(model, GRAPH)
    session.run({"x": to_value(ort, inputs(1)[0])})
    with pytest.raises(ModelError, match="its CUDA graph was made for"):
        session.run({"x": to_value(ort, np.zeros((1, 8), np.float32))})


def test_a_chain_of_captured_slices_is_the_whole(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = split(model, 1, 2)
    pretend_cuda(monkeypatch)
    chain = Chain.open(folder, lambda _: GRAPH)
    for x in inputs(3):
        assert np.array_equal(chain.run({"x": x})["y"], plain(model).run(None, {"x": x})[0])
