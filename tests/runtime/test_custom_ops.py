"""Operators from libraries: what cannot be registered says so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dnnsplit_onnx import InputError, MissingExtraError, ModelError
from dnnsplit_onnx.runtime import custom_ops as registry
from dnnsplit_onnx.runtime.sessions import open_session


@pytest.fixture(autouse=True)
def none_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_libraries", {})


def test_a_library_must_be_there() -> None:
    with pytest.raises(InputError, match=r"no such library of operators: `missing.so`"):
        registry.custom_ops("missing.so")


def test_a_failed_registration_names_the_library(tmp_path: Path, graph_text) -> None:
    (tmp_path / "ops.so").write_text("no library")
    registry.custom_ops(tmp_path / "ops.so")
    graph = graph_text("g (float[1] x) => (float[1] y) { y = Relu (x) }")
    with pytest.raises(ModelError, match=r"cannot register the operators of `.*ops.so`"):
        open_session(graph.file.path)


def test_the_package_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    with pytest.raises(MissingExtraError) as caught:
        registry.custom_ops("onnxruntime-extensions")
    assert caught.value.hint == "pip install onnxruntime-extensions"
