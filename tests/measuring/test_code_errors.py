"""What codes lose of a value, as a profile tells it; and what files of pictures take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dnnsplit_onnx.measuring.profiling.codes import _error, measure_codes
from dnnsplit_onnx.work.analysing import analyse
from tests.serving.tier.test_files import JPEG, MODEL


def test_the_largest_error_stands_over_the_largest_element() -> None:
    value = np.array([0.0, -4.0, 1.0], np.float32)
    assert _error(value, value) == 0
    assert _error(value, value + np.float32([0, 0, 0.5])) == 0.125
    assert _error(np.zeros(2, np.float32), np.float32([0, 0.25])) == 0.25
    assert _error(np.zeros(0, np.float32), np.zeros(0, np.float32)) == 0


def test_what_is_not_finite_has_no_error() -> None:
    infinite = np.array([np.inf, 1.0], np.float32)
    assert _error(infinite, infinite) is None
    assert _error(np.array([7e4], np.float32), np.array([np.inf], np.float16)) is None
    assert _error(np.array([np.nan], np.float32), np.array([1.0], np.float32)) is None


def test_files_of_pictures_are_a_code_of_their_input(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image", reason="needs Pillow: pip install 'dnnsplit-onnx[images]'")
    proto = onnx.parser.parse_model(
        MODEL.replace(", float[4] b", "").replace("c = Relu(b)", "c = Identity(w)")
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(4, np.float32), "w"))
    onnx.save(proto, tmp_path / "m.onnx")
    (tmp_path / "photo.jpg").write_bytes(JPEG)
    times = measure_codes(analyse(tmp_path / "m.onnx"), samples=tmp_path / "photo.jpg")
    (file,) = [one for one in times if one.code == "jpeg"]
    assert (file.value, file.nbytes) == ("picture", len(JPEG))
    assert file.decode_s > 0
    (raw,) = [one for one in times if one.value == "picture" and one.code == "raw"]
    assert raw.nbytes == 200 * 300 * 3
