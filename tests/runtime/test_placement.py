"""Where nodes ran, from records that onnxruntime really makes, and from those only CUDA makes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from dnnsplit_onnx.runtime.placement import Crossings, end_record, placement_of
from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session
from dnnsplit_onnx.runtime.values import to_value
from tests.providers import pretend_cuda
from tests.running.folders import PERCEPTRON, with_weights

Write = Callable[..., Path]
X = np.ones((2, 8), np.float32)


@pytest.fixture
def model(model_text: Write) -> Path:
    return with_weights(model_text(PERCEPTRON))


def real_events(model: Path) -> list[dict[str, Any]]:
    settings = ort.SessionOptions()
    settings.enable_profiling = True
    settings.profile_file_prefix = str(model.parent / "run")
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    for _ in range(3):
        session.run(None, {"x": X})
    events = end_record(session)
    session.run(None, {"x": X})  # goes on, unrecorded
    assert not list(model.parent.glob("run*"))
    return events


def test_nodes_on_the_cpu_are_elsewhere_where_cuda_was_asked_for(model: Path) -> None:
    events = real_events(model)
    found = placement_of(events, "cuda")
    assert [text.rpartition(" ")[2] for text in found.elsewhere] == ["(MatMul)", "(Tanh)", "(MatMul)"]
    assert found.copies == 0
    assert placement_of(events, "cpu").elsewhere == ()


def node(name: str, kind: str, provider: str = "CUDAExecutionProvider", index: int = 0) -> dict[str, Any]:
    about = {"op_name": kind, "provider": provider, "node_index": str(index)}
    return {"cat": "Node", "name": f"{name}_kernel_time", "args": about}


def test_each_copying_node_counts_once_however_often_it_ran() -> None:
    run = [
        node("Memcpy", "MemcpyFromHost", index=7),
        node("conv", "Conv"),
        node("Memcpy", "MemcpyToHost", index=8),
        node("nms", "NonMaxSuppression", "CPUExecutionProvider"),
        node("", "Shape", "CPUExecutionProvider", index=9),
        {"cat": "Session", "name": "model_run", "args": {}},
    ]
    found = placement_of(run * 3, "cuda")
    assert found.copies == 2
    assert found.elsewhere == ("nms (NonMaxSuppression)", "unnamed (Shape)")


def test_a_session_tells_once_and_leaves_nothing_behind(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pretend_cuda(monkeypatch)
    session = open_session(model, SessionOptions(provider="cuda", record=True))
    session.run({"x": to_value(ort, X)})
    assert list(tmp_path.glob("dnnsplit-record-*"))
    found = session.placement()
    assert found is not None
    assert found.copies == 0
    assert session.placement() is None
    unasked = open_session(model, SessionOptions(provider="cuda", record=True))
    del unasked
    assert not list(tmp_path.glob("dnnsplit-record-*"))


def test_the_cpu_keeps_no_record(model: Path) -> None:
    assert open_session(model, SessionOptions(record=True)).placement() is None


def test_crossings_add_up() -> None:
    assert sum([Crossings(1, 2), Crossings(3, 4)], Crossings()) == Crossings(4, 6)
