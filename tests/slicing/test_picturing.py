"""A model that reads a picture computes what the model computes of the picture, normalised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx.errors import InputError, ModelError
from dnnsplit_onnx.graph.picturing import Normalisation
from dnnsplit_onnx.measuring.verification import verify
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.runtime.sessions import open_session
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.slicing.picturing import with_picture
from dnnsplit_onnx.work.analysing import analyse
from tests.serving.conftest import topology


def model(folder: Path, shape: list[int | str], dtype: int = TensorProto.FLOAT, **changes: Any) -> Path:
    """Sums of a picture's channels and rows, and the picture itself."""
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("ReduceSum", ["r"], ["y"], keepdims=1)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, shape), *changes.get("inputs", [])],
        [
            helper.make_tensor_value_info("y", dtype, [1, 1, 1, 1]),
            helper.make_tensor_value_info("r", dtype, shape),
        ],
        changes.get("weights", []),
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_it_computes_the_same(tmp_path: Path, layout: Any, order: Any, dtype: int) -> None:
    shape: list[int | str] = ["N", 3, "H", 8] if layout == "nchw" else ["N", "H", 8, 3]
    path = model(tmp_path, shape, dtype)
    wanted = Normalisation(layout, order, (104.0, 117.0, 123.0), (1 / 57, 1 / 58, 1 / 59))
    assert with_picture(path, tmp_path / "photo.onnx", size=(6, 8), normalisation=wanted) == "picture"
    picture = np.random.default_rng(0).integers(0, 256, (1, 6, 8, 3), np.uint8)
    pixels = picture[..., ::-1] if order == "bgr" else picture
    pixels = (pixels.astype(np.float32) - np.float32(wanted.mean)) * np.float32(wanted.scale)
    pixels = pixels.transpose(0, 3, 1, 2) if layout == "nchw" else pixels
    numbers = helper.tensor_dtype_to_np_dtype(dtype)
    want = open_session(path).run_arrays({"x": np.ascontiguousarray(pixels).astype(numbers)})
    have = open_session(tmp_path / "photo.onnx").run_arrays({"picture": picture})
    assert list(want) == list(have)
    for name, value in want.items():
        assert have[name].tobytes() == value.tobytes()


def test_its_slices_are_proven_and_a_cut_at_the_input_sends_bytes(tmp_path: Path) -> None:
    with_picture(model(tmp_path, [1, 3, "H", "W"]), tmp_path / "photo.onnx", size=(6, 8))
    analysis = analyse(tmp_path / "photo.onnx")
    assert analysis.assumed == {}  # nothing is open any more
    assert int(analysis.cut_nbytes()[0]) == 6 * 8 * 3
    for cut in range(len(analysis.graph.nodes)):
        made = plan(analysis, topology(("edge", "cloud")) | {}, cuts=[cut])  # type: ignore[arg-type]
        slice_model(analysis.graph, made, tmp_path / f"{cut}")
        assert verify(tmp_path / f"{cut}").bitwise


def test_a_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    taken = numpy_helper.from_array(np.zeros(1, np.float32), "picture/mean")
    path = model(tmp_path, [1, 3, 6, 8], weights=[taken])
    assert with_picture(path, tmp_path / "photo.onnx") == "picture_"


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "said"),
    [
        ([1, 3, "H", 8], TensorProto.FLOAT, {}, "leaves its height or width open"),
        ([1, 3, 6, 8], TensorProto.FLOAT, {"size": (6, 9)}, "has 8 in place of 9 columns"),
        ([1, 6, 8, 3], TensorProto.FLOAT, {"size": (6, 8)}, "no picture's in the layout nchw"),
        ([1, 1, 6, 8], TensorProto.FLOAT, {}, "no picture's"),
        ([3, 6, 8], TensorProto.FLOAT, {}, "no picture's"),
        ([1, 3, 6, 8], TensorProto.INT64, {}, "no picture's"),
        ([1, 3, 6, 8], TensorProto.FLOAT, {"value": "z"}, "has no input `z`"),
    ],
)
def test_what_is_no_picture_is_refused(
    tmp_path: Path, shape: list[int | str], dtype: int, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        with_picture(model(tmp_path, shape, dtype), tmp_path / "photo.onnx", **options)
    assert not (tmp_path / "photo.onnx").exists()


def test_of_several_inputs_one_is_named(tmp_path: Path) -> None:
    other = helper.make_tensor_value_info("k", TensorProto.INT64, [1])
    path = model(tmp_path, [1, 3, 6, 8], inputs=[other])
    with pytest.raises(InputError, match="not said") as caught:
        with_picture(path, tmp_path / "photo.onnx")
    assert "`x`" in (caught.value.hint or "")
    assert with_picture(path, tmp_path / "photo.onnx", value="x") == "picture"


@pytest.mark.parametrize("mean", [(), (1.0, 2.0), (float("nan"),)])
def test_numbers_are_one_or_three(mean: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="`mean` is"):
        Normalisation(mean=mean)


def test_weights_beside_the_model_stay_there(tmp_path: Path) -> None:
    weights = [numpy_helper.from_array(np.ones(4096, np.float32), "w")]
    path = model(tmp_path, [1, 3, 6, 8], weights=weights)
    onnx.save(onnx.load(path), path, save_as_external_data=True, size_threshold=0)
    (tmp_path / "other").mkdir()
    with pytest.raises(ModelError, match="weights in files beside it"):
        with_picture(path, tmp_path / "other" / "photo.onnx")
    with_picture(path, tmp_path / "photo.onnx")
    open_session(tmp_path / "photo.onnx")
