from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from dnnsplit_onnx.errors import InputError, ManifestError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.measuring.compare import compare
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.runtime.inputs import generate, to_values
from dnnsplit_onnx.runtime.placement import Crossings
from dnnsplit_onnx.runtime.sessions import TIER, SessionOptions, open_session
from dnnsplit_onnx.runtime.values import to_python, to_value
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.conftest import light
from tests.providers import pretend_cuda
from tests.running.folders import PERCEPTRON, edit_manifest, split, with_weights

Write = Callable[..., Path]
PLAIN = SessionOptions(optimize=False)


def open_chain(folder: Path) -> Chain:
    return Chain.open(folder, lambda _: PLAIN)


def agree(model: Path, folder: Path, inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Runs chain and whole, compares every bit, and returns the outputs."""
    manifest = load_manifest(folder)
    if inputs is None:
        inputs = generate(manifest.model.inputs).values
    made = open_chain(folder).run(inputs)
    whole = open_session(model, PLAIN)
    expected = whole.run(to_values(manifest.model.inputs, inputs))
    assert list(made) == [port.name for port in manifest.model.outputs]
    for name, value in made.items():
        assert compare(value, to_python(ort, expected[name])).bitwise, name
    return made


@pytest.mark.parametrize("cuts", [(0,), (1,), (3,), (1, 2), (0, 3), (1, 1, 2), ()])
def test_perceptron_at_every_cut(model_text: Write, cuts: tuple[int, ...]) -> None:
    model = with_weights(model_text(PERCEPTRON))
    agree(model, split(model, *cuts))


@pytest.mark.parametrize("name", ["shufflenet", "squeezenet", "inception_v1", "densenet121", "resnet50"])
def test_real_topologies(tmp_path: Path, name: str) -> None:
    from dnnsplit_onnx.graph.graph import load_graph
    from dnnsplit_onnx.slicing import slice_model
    from tests.slicing.chain import plan_at

    graph = load_graph(light(name))
    third = len(graph.nodes) // 3
    slice_model(graph, plan_at(graph, (third, 2 * third)), tmp_path / "slices")
    agree(light(name), tmp_path / "slices")


CONSTRUCTS = {
    "skips a tier": "n (float[2] x) => (float[2] y) { a = Relu(x) b = Neg(a) c = Abs(b) y = Add(a, c) }",
    "output used inside": "n (float[2] x) => (float[2] a, float[2] y) { a = Relu(x) b = Neg(a) y = Abs(b) }",
    "output is an input": "n (float[2] x) => (float[2] y, float[2] x) { a = Relu(x) y = Neg(a) }",
    "late input": "n (float[2] x, float[2] z) => (float[2] y) { a = Relu(x) b = Neg(a) y = Add(b, z) }",
    "bfloat16": "n (float[2] x) => (bfloat16[2] y) { a = Cast<to=16>(x) b = Identity(a) y = Identity(b) }",
    "strings": "n (string[3] x) => (string[3] y) { a = Identity(x) b = Identity(a) y = Identity(b) }",
    "sequence": (
        "n (float[2, 3] x) => (float[2, 3] y) "
        "{ s = SplitToSequence<axis=0>(x) t = Identity(s) y = ConcatFromSequence<axis=0>(t) }"
    ),
    "sequence out": "n (float[4] x) => (seq(float[N]) y) { a = Relu(x) b = Neg(a) y = SplitToSequence(b) }",
    "scalar": "n (float x) => (float y) { a = Relu(x) b = Neg(a) y = Abs(b) }",
    "no elements": "n (float[0, 3] x) => (float[0, 3] y) { a = Relu(x) b = Neg(a) y = Abs(b) }",
}


@pytest.mark.parametrize("body", CONSTRUCTS.values(), ids=CONSTRUCTS)
@pytest.mark.parametrize("cuts", [(1,), (1, 2)])
def test_constructs(model_text: Write, body: str, cuts: tuple[int, ...]) -> None:
    model = model_text(body)
    agree(model, split(model, *cuts))


def test_optional_values_cross_present_and_absent(model_text: Write) -> None:
    body = """
    n (bool c, float[2] x) => (bool y) {
        o = If(c) <
            then_branch = t () => (optional(float[2]) p) { p = Optional(x) },
            else_branch = e () => (optional(float[2]) q) { q = Optional<type = float[2]>() }
        >
        h = OptionalHasElement(o)
        y = Not(h)
    }
    """
    model = model_text(body)
    folder = split(model, 1)
    x = np.zeros(2, np.float32)
    for present in (True, False):
        made = agree(model, folder, {"c": np.array(present), "x": x})
        assert made["y"] == (not present)


def test_an_input_of_the_wrong_name_or_none(model_text: Write) -> None:
    model = with_weights(model_text(PERCEPTRON))
    chain = open_chain(split(model, 1))
    with pytest.raises(InputError, match="`x` is missing"):
        chain.run({})
    with pytest.raises(InputError, match="unknown input `z`"):
        chain.run({"x": np.zeros((2, 8), np.float32), "z": np.zeros(1)})


def test_stages_are_reported_in_order(model_text: Write) -> None:
    model = with_weights(model_text(PERCEPTRON))
    chain = open_chain(split(model, 1, 1, 2))
    seen: list[tuple[str, float]] = []
    values = to_values(chain.inputs, {"x": np.zeros((2, 8), np.float32)})
    kept = chain.run_values(values, keep={"h"}, on_stage=lambda tier, seconds: seen.append((tier, seconds)))
    assert [tier for tier, _ in seen] == ["t0", "t2", "t3"]  # t1 has no work
    assert all(seconds > 0 for _, seconds in seen)
    assert list(kept) == ["y", "h"]


class Recorder:
    """A session that computes nothing and records what it was given."""

    def __init__(self, inputs: str, outputs: str, provider: str = "cpu") -> None:
        self.inputs = tuple(inputs.split())
        self.outputs = tuple(outputs.split())
        self.provider = provider
        self.captured = False
        self.given: list[str] = []
        self.on_device: frozenset[str] = frozenset()

    def run(self, values: Mapping[str, Any], *, on_device: Collection[str] = ()) -> dict[str, str]:
        self.given = sorted(values)
        self.on_device = frozenset(on_device)
        return {name: f"made {name}" for name in self.outputs}


def chain_of(*sessions: Recorder, inputs: str = "x", outputs: str = "y") -> Chain:
    stages: Any = [(f"t{at}", session) for at, session in enumerate(sessions)]
    return Chain(stages, [Port(name=name) for name in inputs.split()], outputs.split())


def test_values_are_dropped_after_their_last_reader() -> None:
    stages = [Recorder("x", "a b unused"), Recorder("a", "c"), Recorder("b c", "d y0"), Recorder("d", "y")]
    made = chain_of(*stages, outputs="y y0 x").run_values({"x": "x"})
    assert [stage.given for stage in stages] == [
        ["x"],
        ["a", "b", "x"],  # x is an output too
        ["b", "c", "x"],
        ["d", "x", "y0"],
    ]
    assert made == {"y": "made y", "y0": "made y0", "x": "x"}


def test_values_stay_on_the_device_when_all_their_readers_are_there() -> None:
    edge = Recorder("x", "a", "cpu")
    near = Recorder("a", "b c e y0", "cuda")
    far = Recorder("b c y0", "d", "cuda")
    top = Recorder("c d e", "y", "cpu")
    chain_of(edge, near, far, top, outputs="y y0").run_values({"x": "x"})
    # c is also read on the CPU, e only there, y0 is an output: each is copied once, at once.
    assert [sorted(stage.on_device) for stage in (edge, near, far, top)] == [[], ["b"], [], []]


def test_slices_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ManifestError, match="tier `t0` reads value `a`, which no lower tier makes"):
        chain_of(Recorder("a", "y"), Recorder("x", "a"))
    with pytest.raises(ManifestError, match="no tier makes model output `y`"):
        chain_of(Recorder("x", "a"))


def test_what_several_slices_on_a_device_read_is_copied_there_once(
    model_text: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    # x is read by both slices on the device, and a by one.
    model = model_text(
        "n (float[2] x) => (float[2] y) { a = Relu(x) b = Add(a, x) c = Neg(b) y = Mul(c, x) }"
    )
    folder = split(model, 1, 2)
    pretend_cuda(monkeypatch)
    providers = {"t0": "cpu", "t1": "cuda", "t2": "cuda"}
    chain = Chain.open(folder, lambda tier: SessionOptions(optimize=False, provider=providers[tier]))
    copied: list[str] = []

    def copy(ort: Any, value: Any, device: str) -> Any:
        copied.append(device)
        return to_value(ort, value.numpy().copy())  # where the device is another one

    monkeypatch.setattr("dnnsplit_onnx.running.chain.on_device", copy)
    x = np.array([-1, 2], np.float32)
    expected = -(np.maximum(x, 0) + x) * x
    assert np.array_equal(chain.run({"x": x})["y"], expected)
    assert copied == ["cpu"]  # as the device is called here
    assert chain.crossings == Crossings(to_device=1, to_host=1)


def test_a_value_to_keep_comes_back_to_the_host() -> None:
    near, far = Recorder("x", "a", "cuda"), Recorder("a", "y", "cuda")
    chain = chain_of(near, far)
    chain.run_values({"x": "x"})
    assert near.on_device == {"a"}
    chain.run_values({"x": "x"}, keep={"a"})
    assert near.on_device == frozenset()


def test_each_slice_runs_on_the_provider_of_its_tier(
    model_text: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = split(with_weights(model_text(PERCEPTRON)), 1)

    def plan_for_cuda(data: dict[str, Any]) -> None:
        data["slices"][1] |= {"provider": "cuda", "memory_nbytes": 10**9}

    edit_manifest(folder, plan_for_cuda)
    options = pretend_cuda(monkeypatch)
    chain = Chain.open(folder, lambda _: SessionOptions(provider=TIER))
    assert [session.provider for _, session in chain.stages] == ["cpu", "cuda"]
    (made,) = options
    assert made["gpu_mem_limit"] == 10**9
    assert made["arena_extend_strategy"] == "kSameAsRequested"
