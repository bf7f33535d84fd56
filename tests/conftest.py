"""Shared by all tests: models from text, and where the real ones lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from dnnsplit_onnx.graph.graph import Graph, load_graph

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def light(name: str) -> Path:
    """One of the nine real topologies that the onnx package ships."""
    return LIGHT / f"light_{name}.onnx"


@pytest.fixture
def model_text(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model given in ONNX's text form (onnx.parser) to a file."""

    def write(
        body: str, *, header: str = 'ir_version: 8, opset_import: ["" : 17]', name: str = "m.onnx"
    ) -> Path:
        model = onnx.parser.parse_model(f"<{header}>\n{body}")
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return write


@pytest.fixture
def graph_text(model_text: Callable[..., Path]) -> Callable[..., Graph]:
    """A graph from ONNX's text form."""
    return lambda body, **options: load_graph(model_text(body, **options))
