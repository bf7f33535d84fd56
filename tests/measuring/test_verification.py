import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dnnsplit_onnx.errors import InputError, ManifestError, ModelError
from dnnsplit_onnx.measuring import levels, verification
from dnnsplit_onnx.measuring.compare import Difference, compare
from dnnsplit_onnx.measuring.verification import verify
from tests.conftest import light
from tests.running.folders import (
    PERCEPTRON,
    edit_manifest,
    edit_slice,
    scale_weight,
    split,
    update_hashes,
    with_weights,
)

Write = Callable[..., Path]


@pytest.fixture
def model(model_text: Write) -> Path:
    return with_weights(model_text(PERCEPTRON))


@pytest.fixture
def folder(model: Path) -> Path:
    return split(model, 1, 2)


def test_a_right_chain_passes(folder: Path, model: Path) -> None:
    found = verify(folder)
    assert found.passed
    assert found.bitwise
    assert found.max_abs_diff == found.max_rel_diff == 0
    assert found.model == str(model)
    (output,) = found.outputs
    assert output.vacuous is None
    assert found.boundaries == ()  # the output is proof enough
    assert found.notes == ()


def test_json_has_the_promised_keys_and_no_infinities(folder: Path) -> None:
    edit_slice(folder, "t2", lambda proto: numpy_scale(proto, np.float32(np.nan)))
    update_hashes(folder)
    data = verify(folder).to_dict()
    json.dumps(data, allow_nan=False)
    assert {"bitwise", "max_abs_diff", "max_rel_diff", "passed", "optimized_max_abs_diff"} <= data.keys()
    assert {"whole_optimization_shift", "tolerance", "outputs", "not_comparable", "vacuous"} <= data.keys()
    assert data["passed"] is False
    assert data["max_abs_diff"] is None  # infinite: NaN where the model has a number


def numpy_scale(proto: onnx.ModelProto, factor: np.float32) -> None:
    tensor = proto.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * factor, tensor.name))


def test_a_changed_slice_is_refused_by_its_hash(folder: Path) -> None:
    edit_slice(folder, "t2", scale_weight)
    with pytest.raises(ManifestError, match="checksum differs"):
        verify(folder)


@pytest.mark.parametrize("tier", ["t0", "t2"])
def test_a_wrong_slice_fails_and_is_named(folder: Path, tier: str) -> None:
    edit_slice(folder, tier, scale_weight)
    update_hashes(folder)
    found = verify(folder)
    assert not found.passed
    assert not found.bitwise
    assert 0 < found.max_abs_diff < 1
    assert found.max_rel_diff > 0
    wrong = [boundary.tier for boundary in found.boundaries if not boundary.bitwise]
    # The fault of the last slice shows in the output alone; the first one's spreads.
    assert wrong == (["t0", "t1"] if tier == "t0" else [])
    if tier == "t0":
        assert any("first to differ is value `h`, made on tier `t0`" in note for note in found.notes)


def test_one_bit_is_enough_to_fail(folder: Path) -> None:
    def flip(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        bits = numpy_helper.to_array(tensor).copy().view(np.uint32)
        bits[0, 0] ^= 1
        tensor.CopyFrom(numpy_helper.from_array(bits.view(np.float32), tensor.name))

    edit_slice(folder, "t2", flip)
    update_hashes(folder)
    found = verify(folder)
    assert not found.passed
    assert found.max_abs_diff < 1e-6


def test_a_slice_that_does_not_run_fails(folder: Path) -> None:
    def misname(proto: onnx.ModelProto) -> None:
        proto.graph.node[0].op_type = "NoSuchOperator"

    edit_slice(folder, "t1", misname)
    update_hashes(folder)
    found = verify(folder)
    assert not found.passed
    assert not found.bitwise
    assert "slice `t1` cannot be loaded" in (found.error or "")


def test_a_vacuous_output_is_flagged_and_the_boundaries_are_compared(tmp_path: Path) -> None:
    from dnnsplit_onnx.graph.graph import load_graph
    from dnnsplit_onnx.slicing import slice_model
    from tests.slicing.chain import plan_at

    # Weights of light_* models are constant: each of its 1000 classes has the probability 0.001.
    graph = load_graph(light("shufflenet"))
    slice_model(graph, plan_at(graph, (60, 120)), tmp_path / "slices")
    found = verify(tmp_path / "slices")
    assert found.passed
    assert found.vacuous == ("gpu_0/softmax_1",)
    assert found.boundaries
    assert any(boundary.vacuous is None for boundary in found.boundaries)
    assert any("proves little" in note for note in found.notes)


def test_a_fault_behind_a_vacuous_output_is_found(model_text: Write) -> None:
    # Multiplied by zero at the end: the output says nothing of what came before.
    body = """
    n (float[2, 8] x) => (float[2, 6] y) <float[8, 6] w, float[6] zero> {
        h = MatMul(x, w)
        a = Tanh(h)
        y = Mul(a, zero)
    }
    """
    path = with_weights(model_text(body))
    proto = onnx.load(path)
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.zeros(6, np.float32), "zero"))
    onnx.save(proto, path)
    folder = split(path, 1)
    edit_slice(folder, "t0", lambda proto: numpy_scale(proto, np.float32(2)))
    update_hashes(folder)
    found = verify(folder)
    assert found.bitwise or found.max_abs_diff == 0  # only signs of zero can differ
    assert found.vacuous == ("y",)
    assert not found.passed


RANDOM = """
n (float[2, 8] x) => (float[2, 8] noisy, float[2, 8] clean) {
    a = Tanh(x)
    [noise] r = RandomNormalLike(a)
    noisy = Add(a, r)
    clean = Neg(a)
}
"""


def test_random_outputs_are_set_aside(model_text: Write) -> None:
    found = verify(split(model_text(RANDOM), 1, 2))
    assert found.passed
    assert found.bitwise
    assert [output.name for output in found.outputs] == ["clean"]
    assert [(output.name, output.reason) for output in found.not_comparable] == [
        ("noisy", "it depends on random node `noise`")
    ]


def test_a_model_of_random_outputs_only_is_not_called_bitwise(model_text: Write) -> None:
    body = "n (float[4] x) => (float[4] y) { a = Tanh(x) r = RandomNormalLike(a) y = Add(a, r) }"
    found = verify(split(model_text(body), 1))
    assert found.passed
    assert not found.bitwise
    assert [(boundary.name, boundary.bitwise) for boundary in found.boundaries] == [("a", True)]


def test_seeded_random_nodes_are_compared(model_text: Write) -> None:
    body = "n (float[8] x) => (float[8] y) { a = Tanh(x) r = RandomNormalLike<seed = 3.0>(a) y = Add(a, r) }"
    found = verify(split(model_text(body), 1))
    assert found.bitwise
    assert found.not_comparable == ()


def test_outputs_unlike_themselves_are_set_aside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Stands for a random operator that nobody knows of: every result comes out different.
    rng = np.random.default_rng(0)
    real = verification.to_python

    def noisy(runtime: Any, value: Any) -> Any:
        result = real(runtime, value)
        return result + rng.standard_normal(result.shape)

    monkeypatch.setattr(verification, "to_python", noisy)
    found = verify(folder)
    assert found.outputs == ()
    assert [output.reason for output in found.not_comparable] == ["two runs of the whole model differ"]
    assert found.boundaries == ()  # they differ from themselves, too
    assert not found.bitwise


def test_symbolic_dimensions_are_bound_or_said_to_be_assumed(model_text: Write) -> None:
    body = "n (float[batch, 3] x) => (float[batch, 3] y) { a = Tanh(x) y = Neg(a) }"
    folder = split(model_text(body), 1)
    found = verify(folder)
    assert found.assumed == {"batch": 1}
    assert any("`batch` = 1" in note for note in found.notes)
    edit_manifest(folder, lambda data: data["plan"].update(bindings={"batch": 5}))
    found = verify(folder)
    assert found.passed
    assert (found.assumed, found.bindings) == ({}, {"batch": 5})


GATHER = "n (float[4, 3] x, int64[2] i) => (float[2, 3] y) { a = Tanh(x) y = Gather(a, i) }"


def test_given_inputs(model_text: Write, tmp_path: Path) -> None:
    folder = split(model_text(GATHER), 1)
    arrays = {"x": np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3), "i": np.array([3, 1])}
    np.savez(tmp_path / "x.npz", **arrays)
    for given, source in ((arrays, "given"), (tmp_path / "x.npz", str(tmp_path / "x.npz"))):
        found = verify(folder, inputs=given)
        assert (found.passed, found.runs, found.source) == (True, 1, source)
    with pytest.raises(InputError, match="`i` is missing"):
        verify(folder, inputs={"x": arrays["x"]})


def test_inputs_on_which_the_model_fails(model_text: Write) -> None:
    # Made-up indices are 0 or 1; this table has one row.
    body = "n (float[1, 3] x, int64[20] i) => (float[20, 3] y) { a = Tanh(x) y = Gather(a, i) }"
    folder = split(model_text(body), 1)
    with pytest.raises(InputError, match=r"the whole model fails to run: .*out of data bounds") as made_up:
        verify(folder)
    assert "--input" in (made_up.value.hint or "")
    arrays = {"x": np.zeros((1, 3), np.float32), "i": np.full(20, 5)}
    with pytest.raises(InputError, match="out of data bounds") as given:
        verify(folder, inputs=arrays)
    assert given.value.hint is None


def test_a_model_onnxruntime_cannot_load(model_text: Write) -> None:
    body = "n (float[2] x) => (float[2] y) { a = Tanh(x) y = my.Foo(a) }"
    folder = split(model_text(body, header='ir_version: 8, opset_import: ["" : 17, "my" : 1]'), 1)
    with pytest.raises(ModelError, match="the whole model cannot be loaded"):
        verify(folder)


def test_progress_counts_to_its_end(folder: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    verify(folder, runs=3, progress=lambda *step: seen.append(step))
    assert [done for done, _, _ in seen] == list(range(1, 13))
    assert {total for _, total, _ in seen} == {12}


def test_sequences_strings_and_several_outputs(model_text: Write) -> None:
    body = """
    n (float[4] x, string[5] s) => (seq(float[N]) parts, string[5] t, int64[1] best) {
        a = Tanh(x)
        parts = SplitToSequence(a)
        t = Identity(s)
        best = ArgMax(a)
    }
    """
    found = verify(split(model_text(body), 1, 2))
    assert found.passed
    assert [output.name for output in found.outputs] == ["parts", "t", "best"]


def test_sequences_that_cross_are_compared_too(model_text: Write) -> None:
    body = """
    n (float[4, 3] x) => (float[4, 3] y) {
        zero = Constant<value = float {0.0}>()
        parts = SplitToSequence<axis = 0>(x)
        joined = ConcatFromSequence<axis = 0>(parts)
        positive = Abs(joined)
        y = Mul(positive, zero)
    }
    """
    found = verify(split(model_text(body), 1))
    assert found.passed
    assert found.vacuous == ("y",)
    assert [(b.name, b.bitwise, b.vacuous) for b in found.boundaries] == [("parts", True, None)]


def difference(max_abs: float, *, scale: float = 1.0, mismatched: float = 1.0) -> Difference:
    return Difference(max_abs == 0, max_abs, max_abs, scale, mismatched if max_abs else 0.0)


TOLERANCE = {"rtol": 1e-4, "atol": 1e-6, "mismatched_share": 1e-3}


@pytest.mark.parametrize(
    ("distance", "shift", "last_place", "near"),
    [
        (difference(0), difference(0), 1e-7, True),
        (difference(1e-4), difference(0), 1e-7, True),
        (difference(1.1e-4), difference(0), 1e-7, False),
        (difference(1.1e-4), difference(2e-5), 1e-7, True),  # the whole itself moves
        (difference(1e-2, scale=100), difference(0), 1e-7, True),  # relative to the largest
        (difference(5e-3), difference(0), 1e-3, True),  # float16
        (difference(float("inf")), difference(0), 1e-7, False),
        (difference(float("inf")), difference(float("inf")), 1e-7, True),
        (difference(40, mismatched=1e-4), difference(0), None, True),  # a few labels flip
        (difference(1, mismatched=1e-2), difference(0), None, False),
    ],
)
def test_tolerance(distance: Difference, shift: Difference, last_place: float | None, near: bool) -> None:
    assert levels.is_near(distance, shift, last_place, TOLERANCE) is near


def test_a_drift_beyond_the_tolerance_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The optimised chain alone is off: its outputs are moved after they are made.
    real = verification._Proof.chain

    def drift(proof: Any, *, optimize: bool) -> list[dict[str, Any]]:
        results = real(proof, optimize=optimize)
        return [{name: y + np.float32(0.01 * optimize) for name, y in run.items()} for run in results]

    monkeypatch.setattr(verification._Proof, "chain", drift)
    found = verify(folder)
    assert found.bitwise
    assert not found.passed
    assert not found.outputs[0].within_tolerance
    assert found.worst("optimized_max_abs_diff") == pytest.approx(0.01, rel=1e-3)


def test_expected_outputs_of_onnx(tmp_path: Path) -> None:
    # The onnx package ships what light_squeezenet computes; the chain computes it too.
    from dnnsplit_onnx.graph.graph import load_graph
    from dnnsplit_onnx.running.chain import Chain
    from dnnsplit_onnx.runtime.inputs import generate
    from dnnsplit_onnx.slicing import slice_model
    from dnnsplit_onnx.slicing.manifest import load_manifest
    from tests.slicing.chain import plan_at

    graph = load_graph(light("squeezenet"))
    slice_model(graph, plan_at(graph, (30,)), tmp_path / "slices")
    manifest = load_manifest(tmp_path / "slices")
    made = Chain.open(tmp_path / "slices", manifest=manifest).run(generate(manifest.model.inputs).values)
    tensor = onnx.TensorProto()
    tensor.ParseFromString(light("squeezenet").with_name("light_squeezenet_output_0.pb").read_bytes())
    (value,) = made.values()
    assert compare(value, numpy_helper.to_array(tensor)).max_rel < 1e-5


IN_NAME_ONLY = {
    "noise of no width": "r = RandomUniformLike<low = 0.5, high = 0.5>(a) y = Add(a, r)",
    "noise times 0": "z = Constant<value_float = 0.0>() r = RandomUniformLike(a) n = Mul(r, z) y = Add(a, n)",
    "a dropout that drops nothing": "q = Constant<value_float = 0.0>() t = Constant<value = bool {1}>() "
    "y = Dropout(a, q, t)",
}


@pytest.mark.parametrize("rest", IN_NAME_ONLY.values(), ids=IN_NAME_ONLY)
@pytest.mark.parametrize("position", [1, 2])
def test_what_is_random_only_in_name_is_compared(rest: str, position: int, model_text: Write) -> None:
    found = verify(
        split(model_text(f"n (float[2, 8] x) => (float[2, 8] y) {{ a = Tanh(x) {rest} }}"), position)
    )
    assert found.bitwise
    assert found.not_comparable == ()
    assert [(output.name, output.runs) for output in found.random_in_name] == [("y", 2)]
    assert "random only in name: 2 runs of the whole model agree in every bit" in found.notes[0]
    assert found.to_dict()["random_in_name"][0]["name"] == "y"


def test_noise_of_which_little_is_seen_stays_random(model_text: Write) -> None:
    # Half of the draws of a coin leave an output of one element as it was: two sets of 64 coins do not.
    body = "n (float[64] x) => (float[64] y) { r = RandomUniformLike(x) c = Round(r) y = Mul(x, c) }"
    found = verify(split(model_text(body), 1))
    assert found.random_in_name == ()
    assert [output.name for output in found.not_comparable] == ["y"]


@pytest.mark.parametrize("name", ["n", "?"])
def test_inputs_that_give_a_name_unequal_sizes_are_compared_on(
    name: str, model_text: Write, tmp_path: Path
) -> None:
    path = model_text(
        "g (float[n, 3] a, float[n, 3] b) => (float[m, 3] y) { c = Tanh(a) y = Concat<axis=0>(c, b) }"
    )
    model = onnx.load(path)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = name
    onnx.save(model, path)
    rng = np.random.default_rng(3)
    given = {"a": rng.random((2, 3), np.float32), "b": rng.random((5, 3), np.float32)}
    np.savez(tmp_path / "x.npz", **given)
    slices = split(path, 1)
    for inputs in (given, tmp_path / "x.npz"):
        found = verify(slices, inputs=inputs)
        assert found.bitwise
        said = (f"`{name}` is 2 in input `a` and 5 in `b`",) if name == "n" else ()
        assert found.disagreements == said
        assert any("stands for unequal sizes" in note for note in found.notes) == bool(said)


def test_inputs_that_the_model_cannot_join_tell_what_disagrees(model_text: Write) -> None:
    path = model_text("g (float[n, 3] a, float[n, 3] b) => (float[n, 3] y) { c = Tanh(a) y = Add(c, b) }")
    with pytest.raises(InputError) as caught:
        verify(split(path, 1), inputs={"a": np.ones((2, 3), np.float32), "b": np.ones((5, 3), np.float32)})
    assert caught.value.context == "`n` is 2 in input `a` and 5 in `b`"
