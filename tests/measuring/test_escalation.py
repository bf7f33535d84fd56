"""How often a small model escalates, and agrees: by hand on two models that only scale their input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.measuring.escalation import measure_escalation
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.analysis import Analysis

# What the small model reads is another input of the same file, so that answers can differ.
LARGE = "m (float[1,3] x) => (float[1,3] y) { y = Identity(x) }"
SMALL = "m (float[1,3] z) => (float[1,3] p) { p = Softmax(z) }"
LOGITS = "m (float[1,3] z) => (float[1,3] p) { p = Identity(z) }"
# Largest probabilities: 0.5, 0.8, 0.5, 0.8; the classes of the small model: 1, 0, 2, 2.
PROBABILITIES = np.array([[0.25, 0.5, 0.25], [0.8, 0.1, 0.1], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])
CLASSES = [1, 1, 0, 2]  # of the large model


def built(text: str, folder: Path, name: str) -> Analysis:
    import onnx

    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    onnx.save(model, folder / name)
    return analyse(folder / name)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "samples.npz"
    x = np.eye(3, dtype=np.float32)[CLASSES][:, None, :]
    np.savez(path, x=x, z=np.log(PROBABILITIES).astype(np.float32)[:, None, :])
    return path


@pytest.mark.parametrize("text", [SMALL, LOGITS])
@pytest.mark.parametrize(
    ("threshold", "escalated", "cascade"), [(0.0, 0.0, 0.5), (0.6, 0.5, 0.75), (0.9, 1.0, 1.0)]
)
def test_by_hand(
    text: str, threshold: float, escalated: float, cascade: float, samples: Path, tmp_path: Path
) -> None:
    small, large = built(text, tmp_path, "small.onnx"), built(LARGE, tmp_path, "large.onnx")
    found = measure_escalation(small, large, samples, threshold)
    assert (found.escalated, found.small, found.cascade, found.samples) == (escalated, 0.5, cascade, 4)


def test_what_cannot_be_compared(samples: Path, tmp_path: Path) -> None:
    large = built(LARGE, tmp_path, "large.onnx")
    other = built("m (float[1,3] z) => (float[1,6] p) { p = Concat <axis = 1> (z, z) }", tmp_path, "o.onnx")
    with pytest.raises(InputError, match="scores 6 classes and the large one 3"):
        measure_escalation(other, large, samples, 0.5)
    whole = built(
        "m (float[1,3] z) => (int64[1] p) { p = ArgMax <axis = 1, keepdims = 0> (z) }", tmp_path, "i.onnx"
    )
    with pytest.raises(InputError, match="no scores of classes"):
        measure_escalation(whole, large, samples, 0.5)
    with pytest.raises(InputError, match="no probability"):
        measure_escalation(large, large, samples, 2.0)
