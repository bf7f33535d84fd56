"""States of every kind over tiers: what each run hands to the next, wherever the model is cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.running.steps import Steps
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.edge.conversation import Conversation
from dnnsplit_onnx.serving.tier.cuts import Cuts
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.sequences import Sequence
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.manifest import load_manifest
from dnnsplit_onnx.work.cuts import live_values
from tests.running.stateful import (
    WIDTH,
    Arrays,
    Decoder,
    Whole,
    random_model,
    saved,
    sliced_everywhere,
)
from tests.serving.conftest import Network


class Tiers:
    """The tiers of a folder without a network: each gets exactly what would travel to it."""

    def __init__(self, folder: Path) -> None:
        self.routes = Routes(load_manifest(folder))
        options = SessionOptions(threads=1, optimize=False)
        self.stages = [Stage(folder, self.routes, at, options) for at in range(len(self.routes.tiers))]

    def __call__(self, cuts: Cuts, values: Arrays, sequence: Sequence) -> Arrays:
        route, results = self.routes.route(cuts), {}
        for at, (leg, stage) in enumerate(zip(route.legs, self.stages, strict=True)):
            allowed = {port.name for port in (*leg.arrives, *leg.begins)}
            assert at == 0 or values.keys() <= allowed
            live = {**values, **stage.run(leg, values, Deadline(60), sequence=sequence)}
            results.update(live)
            if not leg.goes_on:
                break
            values = route.sent(at, live)
        return {port.name: results[port.name] for port in self.routes.manifest.results}


def request(rng: np.random.Generator, ports: tuple) -> Arrays:
    return {port.name: rng.standard_normal((1, WIDTH)).astype(np.float32) for port in ports}


@pytest.mark.parametrize("seed", range(16))
def test_random_models_cut_anywhere_step_as_the_whole(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng([seed, 16])
    model, pairs = random_model(rng)
    graph = saved(model, pairs, tmp_path)
    every = sliced_everywhere(graph, tmp_path / "out", tiers=2 + seed % 2)
    tiers, manifest = Tiers(tmp_path / "out"), load_manifest(tmp_path / "out")
    kept = tuple(port for port in manifest.model.inputs if port.name not in graph.fresh_inputs)
    first = request(rng, kept)
    requests = [request(rng, manifest.fresh_inputs) for _ in range(3)]
    whole = Whole(model, graph.states, optimize=False)
    whole.memory = dict(first)
    expected = [whole(inputs) for inputs in requests]

    for cuts in every:
        for link, leg in enumerate(tiers.routes.route(cuts).legs[:-1]):
            # What travels is what is priced, but for nodes that nothing needs.
            assert {port.name for port in leg.sends} <= set(live_values(graph, cuts[link]))
        name = ",".join(map(str, cuts))
        for at, (inputs, wanted) in enumerate(zip(requests, expected, strict=True)):
            brought = {**inputs, **first} if at == 0 else inputs
            for _ in range(1 + (at == 1)):  # the second is sent twice, as if its answer was lost
                made = tiers(cuts, brought, Sequence(name, start=at == 0, step=at))
                assert {key: value.tobytes() for key, value in made.items()} == {
                    key: value.tobytes() for key, value in wanted.items()
                }

    steps = Steps.open(tmp_path / "out", lambda _: SessionOptions(optimize=False))
    for at, (inputs, wanted) in enumerate(zip(requests, expected, strict=True)):
        made = steps(inputs, first if at == 0 else None)
        assert {key: value.tobytes() for key, value in made.items()} == {
            key: value.tobytes() for key, value in wanted.items()
        }


@pytest.mark.parametrize("tiers", [2, 3])
def test_a_decoder_cut_anywhere_says_the_same(tiers: int, tmp_path: Path) -> None:
    """Caches that grow, and caches that stay, with the tokens of one step the inputs of the next."""
    model = Decoder(layers=4 - tiers).model()
    graph = saved(model, (), tmp_path)
    sizes = {"batch": 1, "encoder": 7, "past_decoder": 5}
    every = sliced_everywhere(graph, tmp_path / "out", tiers, sizes=sizes)
    chain = Tiers(tmp_path / "out")
    rng = np.random.default_rng(4)
    begun = {port.name: rng.standard_normal((1, 7, 8)).astype(np.float32) for port in chain.routes.staying}
    whole = Whole(model, graph.states, optimize=False)
    whole.memory = begun | {
        state.input: np.zeros((1, 0, 8), np.float32) for state in graph.states if state.output
    }
    logits = []
    for _ in range(4):
        ids = np.array([[3]]) if not logits else logits[-1].argmax(axis=-1)
        logits.append(whole({"input_ids": ids})["logits"])
    assert len({int(made.argmax()) for made in logits}) > 1  # it says something
    for cuts in every:
        ids = np.array([[3]])
        for at, wanted in enumerate(logits):
            brought = {"input_ids": ids} | (begun if at == 0 else {})
            made = chain(cuts, brought, Sequence(str(cuts), start=at == 0, step=at))["logits"]
            assert made.tobytes() == wanted.tobytes()
            ids = made.argmax(axis=-1)


# Each model, its states, and the cuts of two links. The first cut leaves the state's maker below
# what reads it above, or hands on what a request brings.
KINDS = {
    "a state is read above it": (
        """g (float[1, N, 4] x, float[1, past, 4] past_0) => (float[1, N, 4] y, float[1, total, 4] present_0)
        <int64[1] axis = {1}> {
            present_0 = Concat <axis = 1> (past_0, x)
            r = Relu (x)
            s = ReduceSum (present_0, axis)
            y = Add (s, r)
        }""",
        (),
        (1, 3),
    ),
    "a head reads the last state of a network": (
        """g (float[1, 4] x, float[1, 4] h0) => (float[1, 4] y, float[1, 4] hn) {
            a = Add (x, h0)
            hn = Tanh (a)
            b = Abs (hn)
            y = Mul (b, hn)
        }""",
        (),
        (2, 3),
    ),
    "a state is an input of the model next": (
        """g (float[1, 4] frame, float[1, 4] prev) => (float[1, 4] y, float[1, 4] frame) {
            a = Abs (frame)
            d = Sub (a, prev)
            y = Tanh (d)
        }""",
        ("prev=frame",),
        (1, 2),
    ),
    "a state is what another one was": (
        """g (float[1, 4] x, float[1, 4] first, float[1, 4] second)
            => (float[1, 4] y, float[1, 4] x, float[1, 4] first) {
            a = Neg (x)
            b = Sub (a, first)
            c = Mul (b, second)
            y = Tanh (c)
        }""",
        ("first=x", "second=first"),
        (1, 2),
    ),
    "no node reads it": (
        """g (float[1, 4] x, float[1, 4] past_1) => (float[1, 4] y, float[1, 4] present_1) {
            a = Abs (x)
            y = Tanh (a)
            present_1 = Identity (a)
        }""",
        (),
        (1, 2),
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Network, Whole]]:
    """A chain of servers of each kind, and the whole model."""
    text, pairs, cuts = KINDS[request.param]
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    graph = saved(model, pairs, tmp_path)
    sizes = {"N": 1, "past": 2} if "past," in text else {}
    sliced_everywhere(graph, tmp_path / "out", sizes=sizes, cuts=cuts)
    with ExitStack() as stack:
        yield Network(tmp_path / "out", stack), Whole(model, graph.states)


def test_a_conversation_over_servers_steps_as_the_whole(kind: tuple[Network, Whole]) -> None:
    network, whole = kind
    edge = network.edge(network.chain())
    rng = np.random.default_rng(7)
    shapes = {
        port.name: [1 if dim in (1, "N") else 2 if isinstance(dim, str) else dim for dim in port.shape or ()]
        for port in edge.routes.manifest.model.inputs
    }
    draw = {name: lambda name=name: rng.standard_normal(shapes[name]).astype(np.float32) for name in shapes}
    whole.memory = {port.name: draw[port.name]() for port in edge.routes.states}
    first = dict(whole.memory)
    requests = [
        {port.name: draw[port.name]() for port in edge.routes.manifest.fresh_inputs} for _ in range(4)
    ]
    expected = [whole(inputs) for inputs in requests]
    talk = Conversation(edge)
    for _ in range(2):  # states that are given begin it anew
        for at, (inputs, wanted) in enumerate(zip(requests, expected, strict=True)):
            made = talk.infer(inputs, first if at == 0 else None).outputs
            assert {n: a.tobytes() for n, a in made.items() if a is not None} == {
                n: a.tobytes() for n, a in wanted.items()
            }


def test_what_a_caller_writes_over_changes_no_state(tmp_path: Path) -> None:
    text, pairs, cuts = KINDS["a state is an input of the model next"]
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    sliced_everywhere(saved(model, pairs, tmp_path), tmp_path / "out", cuts=cuts)
    manifest = load_manifest(tmp_path / "out")
    tiers = Tiers(tmp_path / "out")
    steps = Steps.open(tmp_path / "out"), Steps.of_whole(tmp_path / "model.onnx", manifest)
    frame, begun = np.ones((1, WIDTH), np.float32), np.full((1, WIDTH), 3, np.float32)
    previous = begun.copy()
    for at in range(4):
        frame[:] = 1 + at * at  # one array, as a camera has
        given = {"prev": begun} if at == 0 else None
        made = [step({"frame": frame}, given)["y"] for step in steps]
        made.append(tiers(cuts, {"frame": frame} | (given or {}), Sequence("a", start=at == 0, step=at))["y"])
        for y in made:
            np.testing.assert_allclose(y, np.tanh(abs(frame) - previous), rtol=1e-6)
        begun[:] = 9
        previous = frame.copy()
