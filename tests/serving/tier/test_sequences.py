"""Generation across tiers: caches stay where they are, and the tokens are those of the whole model."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.models import write_model
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.running.steps import Steps
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.deploy.export import export_triton
from dnnsplit_onnx.serving.edge.conversation import Conversation
from dnnsplit_onnx.serving.tier.replicas import Replicas
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.sequences import Memories, Sequence, read_sequence
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.wire.errors import DeadlineError, LinkError, ProtocolError, RefusedError
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.slicing.manifest import load_manifest
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.cuts import parted_states
from tests.serving.conftest import Network, eventually, topology

PROMPT = np.array([[5, 17, 3, 42]], dtype=np.int64)
OTHER = np.array([[9, 1]], dtype=np.int64)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    write_model("tiny_decoder", folder / "model.onnx")
    graph = load_graph(folder / "model.onnx")
    whole = np.flatnonzero(~parted_states(graph))
    cuts = [int(whole[len(whole) // 3]), int(whole[2 * len(whole) // 3])]
    sizes = {"batch": 1, "sequence": 1, "past_sequence": 8}
    made = plan(
        analyse(graph, sizes, order="file"), parse_topology(topology(), "tiers"), cuts=cuts, pareto=False
    )
    slice_model(graph, made, folder / "out")
    return folder / "out"


@pytest.fixture
def chain(decoder: Path):
    with ExitStack() as stack:
        yield Network(decoder, stack)


def whole_tokens(decoder: Path, prompt: np.ndarray, count: int) -> list[int]:
    steps = Steps.of_whole(decoder.parent / "model.onnx", load_manifest(decoder))
    return tokens(lambda ids: steps({"input_ids": ids})["logits"], prompt, count)


def tokens(step, prompt: np.ndarray, count: int) -> list[int]:
    new, found = prompt, []
    for _ in range(count):
        new = np.asarray(step(new))[:, -1:].argmax(axis=-1)
        found.append(int(new[0, 0]))
    return found


def says(talk: Conversation, prompt: np.ndarray, count: int) -> list[int]:
    return tokens(lambda ids: talk.infer({"input_ids": ids}).outputs["logits"], prompt, count)


def test_two_texts_at_a_time_over_three_tiers(chain: Network, decoder: Path) -> None:
    edge = chain.edge(chain.chain())
    expected = [whole_tokens(decoder, prompt, 12) for prompt in (PROMPT, OTHER)]
    assert expected[0] != expected[1]
    found: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=lambda at=at, p=p: found.update({at: says(Conversation(edge), p, 12)}))
        for at, p in enumerate((PROMPT, OTHER))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[0], found[1]] == expected
    assert chain.servers["cloud"].service.stage.sequences == 2  # type: ignore[attr-defined]


def test_no_cache_crosses_a_link(chain: Network) -> None:
    edge = chain.edge(chain.chain())
    talk = Conversation(edge)
    first = talk.infer({"input_ids": PROMPT})
    for _ in range(40):
        last = talk.infer({"input_ids": PROMPT[:, :1]})
    assert list(first.outputs) == ["logits"]
    hop = last.tiers[0].hop
    assert hop is not None
    # 44 tokens' caches of one layer are 22 kB; what crosses are the features of one token, and its mask.
    assert hop.sent_nbytes < 3000
    for leg in edge.routes.default.legs:
        assert not {port.name for port in (*leg.arrives, *leg.sends)} & {
            name for state in edge.routes.manifest.states for name in (state.input, state.output)
        }


def test_a_request_without_a_sequence_starts_from_nothing(chain: Network, decoder: Path) -> None:
    edge = chain.edge(chain.chain())
    steps = Steps.open(decoder)
    for _ in range(2):
        steps.forget()
        alone = edge.infer({"input_ids": PROMPT}).outputs["logits"]
        np.testing.assert_array_equal(alone, steps({"input_ids": PROMPT})["logits"])
    with pytest.raises(InputError, match=r"past_key_values"):
        edge.infer({"input_ids": PROMPT, "past_key_values.0.key": np.zeros((1, 4, 0, 16), np.float32)})


def test_a_request_whose_answer_was_lost_is_sent_again(chain: Network, decoder: Path) -> None:
    """Tiers that had computed it already compute it once more from the same states."""
    url = chain.chain()
    edge = chain.edge(url)
    expected = whole_tokens(decoder, PROMPT, 9)
    talk = Conversation(edge)
    assert says(talk, PROMPT, 4) == expected[:4]
    lost, new = talk.steps, np.array([[expected[3]]])
    talk.infer({"input_ids": new})
    talk.steps = lost  # as if the answer had not come
    assert says(talk, new, 5) == expected[4:]


def test_a_tier_that_was_restarted_has_forgotten_and_says_so(chain: Network, decoder: Path) -> None:
    edge = chain.edge(chain.chain())
    talk = Conversation(edge)
    says(talk, PROMPT, 2)
    cloud = chain.servers["cloud"]
    port = cloud.port
    cloud.close()
    with pytest.raises(LinkError):
        talk.infer({"input_ids": PROMPT[:, :1]})
    chain.serve("cloud", port=port)
    assert eventually(lambda: edge.health.reach == 2)
    with pytest.raises(RefusedError, match="start it again") as caught:
        talk.infer({"input_ids": PROMPT[:, :1]})
    assert caught.value.status == 409
    assert says(Conversation(edge), PROMPT, 6) == whole_tokens(decoder, PROMPT, 6)


def test_the_last_request_ends_it(chain: Network) -> None:
    edge = chain.edge(chain.chain())
    talk = Conversation(edge)
    talk.infer({"input_ids": PROMPT})
    assert edge.stage.sequences == 1
    talk.infer({"input_ids": PROMPT[:, :1]}, last=True)
    assert edge.stage.sequences == 0
    assert chain.servers["cloud"].service.stage.sequences == 0  # type: ignore[attr-defined]


def test_tritons_client_keeps_a_sequence(decoder: Path, chain: Network, tmp_path: Path) -> None:
    client = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    graph = load_graph(decoder.parent / "model.onnx")
    sizes = {"batch": 1, "sequence": 1, "past_sequence": 8}
    alone = plan(graph, parse_topology(topology(("cloud",)), "tiers"), bindings=sizes, pareto=False)
    slice_model(graph, alone, tmp_path / "alone")
    server = chain.serve("cloud", folder=tmp_path / "alone")

    def step(ids: np.ndarray) -> np.ndarray:
        tensor = client.InferInput("input_ids", list(ids.shape), "INT64")
        tensor.set_data_from_numpy(ids)
        found = triton.infer("cloud", [tensor], sequence_id=7, sequence_start=ids is PROMPT)
        return np.asarray(found.as_numpy("logits"))

    with client.InferenceServerClient(server.url.removeprefix("http://")) as triton:
        assert tokens(step, PROMPT, 8) == whole_tokens(decoder, PROMPT, 8)


def test_replicas_do_not_share_states(decoder: Path) -> None:
    with pytest.raises(InputError, match="keeps states from request to request"):
        Replicas(Routes(load_manifest(decoder)), 1, lambda: None, 2)  # type: ignore[arg-type, return-value]


def test_parameters_are_read_strictly() -> None:
    assert read_sequence({}) is None
    assert read_sequence({"sequence_id": 0, "sequence_start": True}) is None
    read = read_sequence({"sequence_id": 12, "sequence_start": True, "dnnsplit_step": 3})
    assert read == Sequence("12", start=True, end=False, step=3)
    assert read_sequence(read.parameters()) == read
    for wrong in (
        {"sequence_id": 1.5},
        {"sequence_id": True},
        {"sequence_id": "x" * 300},
        {"sequence_id": "x", "sequence_start": 1},
        {"sequence_id": "x", "dnnsplit_step": -1},
        {"sequence_id": "x", "dnnsplit_step": True},
    ):
        with pytest.raises(ProtocolError):
            read_sequence(wrong)


def step(memories: Memories, sequence: Sequence, add: int, part: str = "slice") -> int:
    with memories.step(sequence, part, lambda: {"sum": 0}, Deadline(5)) as turn:
        turn.after = {"sum": turn.states["sum"] + add}
    return int(turn.after["sum"])


def test_steps_go_on_from_one_another_and_repeat() -> None:
    memories = Memories()
    assert step(memories, Sequence("a", start=True, step=0), 1) == 1
    assert step(memories, Sequence("a", step=1), 10) == 11
    assert step(memories, Sequence("a", step=1), 20) == 21  # sent again
    assert step(memories, Sequence("a"), 100) == 121  # nobody counts
    for wrong in (0, 1, 4):
        with pytest.raises(ProtocolError, match="is at step 2"):
            step(memories, Sequence("a", step=wrong), 0)
    with pytest.raises(ProtocolError, match="start it again"):
        step(memories, Sequence("a", step=3), 0, part="other slice")
    assert step(memories, Sequence("a", start=True), 5) == 5


def fails(memories: Memories, sequence: Sequence) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        memories.step(sequence, "slice", lambda: {"sum": 0}, Deadline(5)) as turn,
    ):
        turn.after = {"sum": turn.states["sum"] // 0}


def test_a_step_that_fails_changes_nothing() -> None:
    memories = Memories()
    step(memories, Sequence("a", start=True, step=0), 1)
    fails(memories, Sequence("a", step=1))
    assert step(memories, Sequence("a", step=1), 1) == 2


def test_a_start_that_fails_leaves_nothing() -> None:
    memories = Memories()
    for name in "abc":
        fails(memories, Sequence(name, start=True))
    assert (len(memories), memories.nbytes) == (0, 0)
    with pytest.raises(ProtocolError, match="start it again"):
        step(memories, Sequence("a"), 1)


def test_what_is_kept_is_bounded_in_bytes() -> None:
    """The one silent for longest makes room; one that is computed does not."""
    memories = Memories(5 * 1024, size_of=lambda state: 1024 if state else 0)
    for name in "ab":  # 1 KiB each, and 1 KiB for the entry
        step(memories, Sequence(name, start=True), 1)
    assert (len(memories), memories.nbytes) == (2, 4096)
    with memories.step(Sequence("a"), "slice", dict, Deadline(5)) as turn:
        turn.after = turn.states  # the same states: counted once
        step(memories, Sequence("c", start=True), 1)
        assert len(memories) == 2
    with pytest.raises(ProtocolError, match="start it again"):
        step(memories, Sequence("b"), 1)
    assert step(memories, Sequence("a"), 1) == 2
    step(memories, Sequence("a", end=True), 1)
    step(memories, Sequence("c", end=True), 1)
    assert (len(memories), memories.nbytes) == (0, 0)


def test_states_that_never_fit_are_refused() -> None:
    memories = Memories(4096, size_of=lambda state: 8192 if state else 0)
    with pytest.raises(ProtocolError, match="take 9216 bytes; at most 4096") as caught:
        step(memories, Sequence("a", start=True), 1)
    assert caught.value.status == 413
    assert (len(memories), memories.nbytes) == (0, 0)


def test_conversations_without_an_end_do_not_fill_a_tier(decoder: Path) -> None:
    """Nobody has to say that a request is the last one."""
    routes = Routes(load_manifest(decoder))
    stage = Stage(decoder, routes, 0, SessionOptions(threads=1), states_nbytes=100_000)
    leg = routes.default.legs[0]
    for at in range(100):
        stage.run(leg, {"input_ids": PROMPT}, Deadline(5), sequence=Sequence(str(at), start=True, step=0))
    assert 0 < stage.sequences < 100
    assert 0 < stage.kept_nbytes <= 100_000
    stage.run(leg, {"input_ids": PROMPT}, Deadline(5), sequence=Sequence("99", step=1))


def test_a_turn_is_waited_for_until_the_deadline() -> None:
    memories = Memories()
    step(memories, Sequence("a", start=True), 1)
    with memories.step(Sequence("a"), "slice", dict, Deadline(5)) as turn:
        with (
            pytest.raises(DeadlineError, match="sequence `a` took too long"),
            memories.step(Sequence("a"), "slice", dict, Deadline(0.01)),
        ):
            pass
        turn.after = turn.states


def test_engines_that_keep_no_states_are_not_given_them(decoder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keeps states from request to request"):
        export_triton(decoder, tmp_path / "triton")
    assert not (tmp_path / "triton").exists()
