import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from dnnsplit_onnx.errors import ManifestError, MissingExtraError, ModelError
from dnnsplit_onnx.running.slices import open_slice
from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session
from dnnsplit_onnx.runtime.values import to_python, to_value
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.providers import pretend_cuda, without_gpu
from tests.running.folders import PERCEPTRON, edit_manifest, edit_slice, scale_weight, split, with_weights

Write = Callable[..., Path]
X = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)


@pytest.fixture
def perceptron(model_text: Write) -> Path:
    return with_weights(model_text(PERCEPTRON))


def values(**arrays: Any) -> dict[str, Any]:
    return {name: to_value(ort, array) for name, array in arrays.items()}


def test_runs_what_it_reads_and_leaves_the_rest(perceptron: Path) -> None:
    session = open_session(perceptron)
    assert (session.inputs, session.outputs, session.provider, session.cpu_nodes) == (
        ("x",),
        ("y",),
        "cpu",
        (),
    )
    made = session.run(values(x=X, other=X))
    reference = ort.InferenceSession(str(perceptron), providers=["CPUExecutionProvider"]).run(None, {"x": X})
    np.testing.assert_allclose(to_python(ort, made["y"]), reference[0], rtol=1e-6)


def test_results_outlive_their_session(perceptron: Path) -> None:
    session = open_session(perceptron)
    result = to_python(ort, session.run(values(x=X))["y"])
    before = result.copy()
    del session
    gc.collect()
    junk = [np.full((2, 4), 7, np.float32) for _ in range(1000)]
    assert np.array_equal(result, before), junk[0]


def test_optimisation_level_threads_and_spinning_reach_onnxruntime(
    perceptron: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = ort.InferenceSession

    def spy(source: Any, settings: Any, **rest: Any) -> Any:
        seen.append(settings)
        return real(source, settings, **rest)

    monkeypatch.setattr(ort, "InferenceSession", spy)
    open_session(perceptron, SessionOptions(optimize=False, threads=2, spin=False))
    open_session(perceptron)
    plain, default = seen
    assert plain.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert default.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert (plain.intra_op_num_threads, default.intra_op_num_threads) == (2, 0)
    assert plain.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert default.get_session_config_entry("session.force_spinning_stop") == "1"


def test_exposes_inner_values_without_touching_the_weights(perceptron: Path) -> None:
    before = perceptron.read_bytes()
    session = open_session(perceptron, expose=("h", "y"))
    made = session.run(values(x=X))
    assert set(made) == {"y", "h"}
    weights = onnx.numpy_helper.to_array(onnx.load(perceptron).graph.initializer[0])
    np.testing.assert_allclose(to_python(ort, made["h"]), X @ weights, rtol=1e-5)
    assert perceptron.read_bytes() == before


def test_exposes_where_large_weights_stay_in_the_file(model_text: Write) -> None:
    body = "n (float[1, 40] x) => (float[1, 40] y) <float[40, 40] w> { h = MatMul(x, w) y = Relu(h) }"
    path = with_weights(model_text(body))  # 6400 bytes: read as a range of the model's own file
    x = np.ones((1, 40), np.float32)
    made = open_session(path, SessionOptions(optimize=False), expose=("h",)).run(values(x=x))
    weights = onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    np.testing.assert_allclose(to_python(ort, made["h"]), x @ weights, rtol=1e-5)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("n (float[2] x) => (float[2] y) { y = my.Foo(x) }", "cannot be loaded"),
        ("n (float[2] x) => (int64[2] y) { y = Relu(x) }", "cannot be loaded: Type Error"),
    ],
)
def test_a_model_it_cannot_load_fails_in_one_line(model_text: Write, body: str, why: str) -> None:
    path = model_text(body, header='ir_version: 8, opset_import: ["" : 17, "my" : 1]')
    with pytest.raises(ModelError, match=why) as caught:
        open_session(path)
    assert "\n" not in caught.value.message
    assert "ONNXRuntimeError" not in caught.value.message


def test_what_goes_wrong_in_a_run_is_one_line_and_silent(
    model_text: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    body = "n (float[2, 3] x, int64[k] i) => (float[k, 3] y) { y = Gather(x, i) }"
    session = open_session(model_text(body), label="slice `edge`")
    good = {"x": np.zeros((2, 3), np.float32), "i": np.array([1])}
    for change, message in [
        ({"i": np.array([7])}, "Gather.*out of data bounds"),
        ({"x": np.zeros((2, 4), np.float32)}, "invalid dimensions for input: x"),
        ({"x": np.zeros((2, 3))}, "Unexpected input data type"),
    ]:
        with pytest.raises(ModelError, match=rf"slice `edge` fails to run: .*{message}"):
            session.run(values(**(good | change)))
    with pytest.raises(ModelError, match="missing"):
        session.run(values(x=good["x"]))
    assert capfd.readouterr() == ("", "")


def test_cuda_where_there_is_none_is_refused_and_not_replaced(perceptron: Path) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(MissingExtraError, match="built without it"):
        open_session(perceptron, SessionOptions(provider="cuda"))


def test_a_session_that_fell_back_is_refused(perceptron: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    with pytest.raises(MissingExtraError, match="fell back to CPUExecutionProvider"):
        open_session(perceptron, SessionOptions(provider="cuda"))


def test_bound_runs_give_the_same(perceptron: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = to_python(ort, open_session(perceptron).run(values(x=X))["y"])
    pretend_cuda(monkeypatch)
    session = open_session(perceptron, SessionOptions(provider="cuda"))
    assert np.array_equal(to_python(ort, session.run(values(x=X))["y"]), plain)


@pytest.mark.parametrize(
    "message",
    [
        "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 1073741824",
        "Available memory of 0 is smaller than requested bytes of 1073741824",
        "CUDA failure 2: out of memory",
    ],
)
def test_too_little_memory_on_a_device_says_what_to_do(
    perceptron: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    pretend_cuda(monkeypatch)
    session = open_session(perceptron, SessionOptions(provider="cuda"))

    def fail(*_: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(session, "_run_bound", fail)
    with pytest.raises(ModelError, match="fails to run") as caught:
        session.run(values(x=X))
    assert "`memory_gb`" in (caught.value.hint or "")


class TestSlices:
    def test_opens_what_the_manifest_lists(self, perceptron: Path) -> None:
        folder = split(perceptron, 2)
        edge, cloud = (open_slice(folder, record) for record in load_manifest(folder).slices)
        assert (edge.inputs, edge.outputs) == (("x",), ("a",))
        assert (cloud.inputs, cloud.outputs) == (("a",), ("y",))
        assert edge.label == "slice `t0`"

    def test_a_changed_file_is_refused_unless_unchecked(self, perceptron: Path) -> None:
        folder = split(perceptron, 2)
        edit_slice(folder, "t0", scale_weight)
        record = load_manifest(folder).slices[0]
        with pytest.raises(ManifestError, match="checksum differs"):
            open_slice(folder, record)
        open_slice(folder, record, check=False)

    def test_other_values_than_the_manifest_lists_are_refused(self, perceptron: Path) -> None:
        folder = split(perceptron, 2)

        def rename(data: dict[str, Any]) -> None:
            data["slices"][0]["outputs"][0]["name"] = "other"

        edit_manifest(folder, rename)
        with pytest.raises(ManifestError, match="does not read and make the values"):
            open_slice(folder, load_manifest(folder).slices[0])

    def test_a_tier_without_work_has_nothing_to_open(self, perceptron: Path) -> None:
        folder = split(perceptron, 3)
        with pytest.raises(ManifestError, match="tier `t1` has no work"):
            open_slice(folder, load_manifest(folder).slices[1])
