"""What a sequence begins with: states that stay for all of it, and what others are at first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx import Link, Tier, Topology, plan, slice_model
from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.states import State
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.running.steps import Steps
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.edge.conversation import Conversation
from dnnsplit_onnx.serving.edge.here import Here
from dnnsplit_onnx.serving.edge.running import run_requests
from dnnsplit_onnx.serving.tier.sequences import Sequence
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.wire.errors import ProtocolError, RefusedError
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.manifest import Manifest, load_manifest
from dnnsplit_onnx.work.cuts import parted_states
from tests.running.stateful import Arrays, Decoder, Whole, merged_decoder, saved, sliced_everywhere
from tests.serving.conftest import Network

LENGTH = 200


def caches(seed: int, length: int = LENGTH) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        f"past_key_values.{at}.encoder.key": rng.standard_normal((1, length, 8)).astype(np.float32)
        for at in range(2)
    }


def token(at: int) -> Arrays:
    return {"input_ids": np.array([[3 * at % 16]])}


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of two layers, cut after the embedding and between its layers."""
    place = tmp_path_factory.mktemp("cross")
    graph = saved(Decoder().model(), (), place)
    assert {state for state in graph.states if state.output is None} == {
        State(name, None) for name in caches(0)
    }
    cuts = [1, graph.position_of_node["layer0/cross/out"] + 1]
    sizes = {"batch": 1, "encoder": LENGTH, "past_decoder": 5}
    sliced_everywhere(graph, place / "out", sizes=sizes, cuts=cuts)
    return place / "out"


@pytest.fixture
def network(slices: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network(slices, stack)


def whole_of(folder: Path, memory: Arrays) -> Whole:
    import onnx

    model = onnx.load(folder.parent / "model.onnx")
    states = [State(state.input, state.output) for state in load_manifest(folder).states]
    whole = Whole(model, states)
    empty = {state.input: np.zeros((1, 0, 8), np.float32) for state in states}
    whole.memory = empty | memory
    return whole


def same(ours: dict[str, np.ndarray | None], theirs: Arrays) -> bool:
    return ours.keys() == theirs.keys() and all(
        (array := ours[name]) is not None and array.tobytes() == wanted.tobytes()
        for name, wanted in theirs.items()
    )


def test_caches_that_stay_travel_once(network: Network, slices: Path) -> None:
    edge = network.edge(network.chain())
    talk, whole, given = Conversation(edge), whole_of(slices, caches(1)), caches(1)
    sent = []
    for at in range(6):
        answer = talk.infer({**token(at), **given} if at == 0 else token(at))
        assert same(answer.outputs, whole(token(at)))
        for array in given.values():
            array[:] = 0  # what the tiers keep is their own
        sent.append([tier.hop.sent_nbytes for tier in answer.tiers[:2] if tier.hop is not None])
    nbytes = LENGTH * 8 * 4
    # Both layers' caches go over the first link, the second layer's over the second.
    assert sent[0][0] > 2 * nbytes
    assert nbytes < sent[0][1] < 2 * nbytes
    assert all(max(later) < 1500 for later in sent[1:])
    plan = Plan.from_dict(load_manifest(slices).plan)
    assert [link.once_nbytes for link in plan.figures.links] == [2 * nbytes, nbytes]
    assert [link.once_seconds for link in plan.figures.links] == [8 * n / 10e6 for n in (2 * nbytes, nbytes)]
    assert [link.nbytes for link in plan.figures.links] == [8 * 4, 8 * 4]
    assert sum("a sequence begins with" in note for note in plan.notes) == 2


def test_a_sequence_does_not_begin_without_them(network: Network, slices: Path) -> None:
    edge = network.edge(network.chain())
    lacking = dict(list(caches(1).items())[:1])
    for infer in (Conversation(edge).infer, edge.infer, Steps.open(slices)):
        with pytest.raises(InputError, match=r"state `past_key_values\.1\.encoder\.key` stays") as caught:
            infer({**token(0), **lacking})
        assert "among the inputs of the first request" in (caught.value.hint or "")
    # A client that checks nothing is told by the tier.
    stage = Stage(slices, edge.routes, 1, SessionOptions(threads=1))
    leg = edge.routes.default.legs[1]
    values = {port.name: np.zeros((1, 1, 8), np.float32) for port in leg.arrives}
    with pytest.raises(ProtocolError, match="its first request has to bring it"):
        stage.run(leg, values, Deadline(5), sequence=Sequence("a", start=True))
    assert stage.sequences == 0


def test_a_request_may_bring_them_again(network: Network, slices: Path) -> None:
    edge = network.edge(network.chain())
    talk, steps, whole = Conversation(edge), Steps.open(slices), whole_of(slices, caches(1))
    for at in range(5):
        brought = caches(at) if at in (0, 3) else {}  # others from the fourth request on
        whole.memory |= brought
        wanted = whole(token(at))
        assert same(talk.infer({**token(at), **brought}).outputs, wanted)
        assert same(steps({**token(at), **brought}), wanted)


def test_what_states_are_at_first_may_be_given(network: Network, slices: Path) -> None:
    edge = network.edge(network.chain())
    rng = np.random.default_rng(5)
    given = {
        f"past_key_values.{at}.decoder.key": rng.standard_normal((1, 7, 8)).astype(np.float32)
        for at in range(2)
    }
    talk, steps = Conversation(edge), Steps.open(slices)
    for begin in (given, {}):
        whole = whole_of(slices, caches(2) | begin)
        for at in range(4):
            inputs, states = ({**token(at), **caches(2)}, begin) if at == 0 else (token(at), None)
            wanted = whole(token(at))
            assert same(talk.infer(inputs, states).outputs, wanted)
            assert same(steps(inputs, states), wanted)
        wanted = whole_of(slices, caches(2) | begin)(token(0))
        for client in (edge, Here(slices)):  # a request alone is a first one
            assert same(client.infer({**token(0), **caches(2)}, states=begin).outputs, wanted)


def test_what_is_no_state_or_does_not_fit_is_named(network: Network) -> None:
    edge = network.edge(network.chain())
    inputs = {**token(0), **caches(1)}
    with pytest.raises(InputError, match="unknown state `past`") as caught:
        edge.infer(inputs, states={"past": np.zeros(1)})
    assert "past_key_values.0.decoder.key" in (caught.value.hint or "")
    with pytest.raises(InputError, match="has the shape"):
        edge.infer(inputs, states={"past_key_values.0.decoder.key": np.zeros((1, 7, 9), np.float32)})
    with pytest.raises(InputError, match="unknown input `past_key_values"):
        edge.infer({**inputs, "past_key_values.0.decoder.key": np.zeros((1, 7, 8), np.float32)})
    # What fits nothing else in the run is refused where it is run, and the conversation goes on.
    talk = Conversation(edge)
    odd = {"past_key_values.1.decoder.key": np.zeros((3, 7, 8), np.float32)}
    with pytest.raises((InputError, RefusedError)):
        talk.infer(inputs, odd)
    assert talk.infer(inputs, {}).outputs.keys() == {"logits"}


def test_run_takes_states_from_its_file(network: Network, slices: Path, tmp_path: Path) -> None:
    edge = network.edge(network.chain())
    states = {"past_key_values.0.decoder.key": np.ones((1, 3, 8), np.float32)}
    np.savez(tmp_path / "x.npz", **token(1), **caches(3), **states)
    report = run_requests(edge, tmp_path / "x.npz", runs=2)
    assert report.failed == 0
    assert report.outputs is not None
    assert same(report.outputs, whole_of(slices, caches(3) | states)(token(1)))
    assert run_requests(edge, None).failed == 0  # made-up ones begin with all that they need


def test_a_merged_decoder_keeps_its_encoders_caches(tmp_path: Path) -> None:
    graph = saved(merged_decoder(), (), tmp_path)
    sizes = {"batch": 1, "encoder": 6, "past": 2, "past_encoder": 6}
    sliced_everywhere(graph, tmp_path / "out", sizes=sizes, cuts=(1, 2))
    manifest = load_manifest(tmp_path / "out")
    assert [state.input for state in manifest.states if state.kept_if_empty] == [
        "past_key_values.0.encoder.key"
    ]
    encoder = np.random.default_rng(3).standard_normal((1, 6, 4)).astype(np.float32)
    whole = Whole(merged_decoder(), graph.states)
    whole.memory = {
        "encoder_hidden_states": encoder,
        "past_key_values.0.decoder.key": np.zeros((1, 0, 4), np.float32),
        "past_key_values.0.encoder.key": np.zeros((1, 0, 4), np.float32),
    }
    with ExitStack() as stack:
        network = Network(tmp_path / "out", stack)
        talk = Conversation(network.edge(network.chain()))
        ours = Steps.open(tmp_path / "out")
        theirs = Steps.of_whole(tmp_path / "model.onnx", manifest)
        kept = np.zeros(0)
        for at in range(5):
            inputs = {**token(at), "use_cache_branch": np.array([at > 0])}
            wanted = whole(inputs)
            if at == 0:
                kept = whole.memory["past_key_values.0.encoder.key"]
                inputs["encoder_hidden_states"] = encoder
            else:  # what the branch with caches returns is empty
                assert whole.memory["past_key_values.0.encoder.key"].shape[0] == 0
                whole.memory["past_key_values.0.encoder.key"] = kept
            assert kept.shape == (1, 6, 4)
            for made in (talk.infer(inputs).outputs, ours(inputs), theirs(inputs)):
                assert same(made, wanted)


def test_what_no_step_changes_of_a_state_is_not_empty_at_first(tmp_path: Path) -> None:
    """As onnxruntime-genai writes decoders: heads and their width are names."""
    import onnx

    from dnnsplit_onnx.models import write_model

    write_model("tiny_decoder", tmp_path / "fixed.onnx")
    model = onnx.load(tmp_path / "fixed.onnx")
    heads, width = 4, 16
    for value in (*model.graph.input, *model.graph.output):
        if value.name.startswith(("past", "present")):
            dims = value.type.tensor_type.shape.dim
            assert (dims[1].dim_value, dims[3].dim_value) == (heads, width)
            dims[1].dim_param, dims[3].dim_param = "num_heads", "kv_cache_dim"
    graph = saved(model, (), tmp_path)
    sizes = {"batch": 1, "sequence": 1, "past_sequence": 4, "num_heads": heads, "kv_cache_dim": width}
    whole = Steps.of_whole(tmp_path / "model.onnx", _sliced(graph, tmp_path / "out", sizes))
    manifest = load_manifest(tmp_path / "out")
    assert all(s.fixed == {"num_heads": heads, "kv_cache_dim": width} for s in manifest.states)
    with ExitStack() as stack:
        network = Network(tmp_path / "out", stack)
        talk, ours = Conversation(network.edge(network.chain())), Steps.open(tmp_path / "out")
        for at in range(3):
            inputs = {"input_ids": np.array([[5, 17 + at], [9, at]])}
            wanted = whole(inputs)
            assert wanted["logits"].shape[0] == 2
            assert same(talk.infer(inputs).outputs, wanted)
            assert same(ours(inputs), wanted)


def _sliced(graph: Graph, folder: Path, sizes: dict[str, int]) -> Manifest:
    positions = np.flatnonzero(~parted_states(graph)).tolist()
    cuts = [positions[len(positions) // 3], positions[2 * len(positions) // 3]]
    tiers = [Tier(name, gflops=1) for name in ("edge", "near", "cloud")]
    machines = Topology(tiers=tiers, links=[Link(bandwidth_mbps=10)] * 2)
    slice_model(graph, plan(graph, machines, cuts=cuts, bindings=sizes, pareto=False), folder)
    return load_manifest(folder)
