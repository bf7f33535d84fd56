"""Conversations over servers: cut back, forked, closed, and begun again where a tier lost them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.errors import RequestError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.running.generating.drafting import Draft
from dnnsplit_onnx.running.generating.generator import Generator
from dnnsplit_onnx.running.generating.local import LocalDecoder
from dnnsplit_onnx.running.generating.opening import open_decoder
from dnnsplit_onnx.running.generating.sampling import Sampling
from dnnsplit_onnx.serving.edge.conversation import Conversation
from dnnsplit_onnx.serving.edge.talking import ServedDecoder
from dnnsplit_onnx.serving.wire.errors import ServingError
from dnnsplit_onnx.slicing.candidates import slice_all_candidates
from dnnsplit_onnx.slicing.manifest import load_manifest
from dnnsplit_onnx.slicing.records import recorded_plan
from tests.running.decoders import PROMPTS, make_decoder
from tests.running.encoders import cut_after_encoder, write_pair
from tests.running.encoders import said as spoken
from tests.serving.conftest import Network, eventually

NEW = 16


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def whole(place: Path) -> LocalDecoder:
    return LocalDecoder.of_model(place / "decoder.onnx")


@pytest.fixture(scope="module")
def expected(whole: LocalDecoder) -> list[tuple[int, ...]]:
    return [Generator(whole)(prompt, Sampling(max_new=NEW)).tokens for prompt in PROMPTS]


@pytest.fixture
def network(place: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network(place / "slices", stack)


def kept(network: Network, tier: str) -> int:
    return network.servers[tier].service.stage.sequences  # type: ignore[union-attr, attr-defined]


def restart(network: Network, tier: str) -> None:
    """Stops a server and starts it again at its address; what it kept is gone."""
    server = network.servers[tier]
    above = network.servers["cloud"].url if tier == "near" else None
    port = server.port
    server.close()
    network.serve(tier, above, port=port)


def test_text_over_servers_is_that_of_the_whole(network: Network, expected: list[tuple[int, ...]]) -> None:
    with Generator(ServedDecoder(network.edge(network.chain()))) as generator:
        answers = list(generator.several(PROMPTS * 2, Sampling(max_new=NEW), concurrency=4))
        assert [answer.tokens for answer in answers] == expected * 2
        # All were closed: nobody keeps anything.
        assert (kept(network, "near"), kept(network, "cloud")) == (0, 0)


def test_drafts_over_servers_change_no_token(
    network: Network, whole: LocalDecoder, expected: list[tuple[int, ...]]
) -> None:
    edge = network.edge(network.chain())
    with Generator(ServedDecoder(edge), draft=Draft(whole, 4)) as generator:
        for prompt, tokens in zip(PROMPTS, expected, strict=True):
            assert generator(prompt, Sampling(max_new=NEW)).tokens == tokens
    # Fewer requests than tokens.
    assert edge.metrics.value("requests_total", 'result="answered"') < len(PROMPTS) * NEW / 2


def test_what_an_encoder_gave_goes_to_the_tiers_once(tmp_path: Path) -> None:
    encoder, decoder = write_pair(tmp_path)
    slices, sampling = cut_after_encoder(decoder, tmp_path / "slices"), Sampling(max_new=NEW, start=(4,))
    with ExitStack() as stack:
        network = Network(slices, stack)
        edge = network.edge(network.chain())
        with Generator(ServedDecoder(edge), encoder=open_decoder(encoder)) as generator:
            for prompt in ([1, 2, 3], [8], [5, 5, 5, 1]):
                assert generator(prompt, sampling).tokens == spoken(prompt, (4,), NEW)
            # A tier that is started again has lost it, and is told again.
            pieces = generator.stream([7, 2], sampling)
            tokens = [next(pieces).token for _ in range(4)]
            restart(network, "near")
            tokens += [piece.token for piece in pieces]
            assert tuple(tokens) == spoken([7, 2], (4,), NEW)


@pytest.mark.parametrize("tier", ["near", "cloud"])
def test_a_tier_that_was_restarted_is_filled_again(
    network: Network, expected: list[tuple[int, ...]], tier: str
) -> None:
    edge = network.edge(network.chain())
    with Generator(ServedDecoder(edge)) as generator:
        said = []
        for at, piece in enumerate(generator.stream(PROMPTS[0], Sampling(max_new=NEW))):
            said.append(piece.token)
            if at == 5:
                restart(network, tier)
        assert tuple(said) == expected[0]
    assert edge.metrics.value("replays_total") == 1
    assert edge.metrics.value("replayed_tokens_total") == len(PROMPTS[0]) + 5


def ids(*tokens: int) -> dict[str, np.ndarray]:
    return {"input_ids": np.array([tokens])}


def logits(answer: object) -> np.ndarray:
    made: np.ndarray = answer.outputs["logits"][0, -1]  # type: ignore[attr-defined]
    return made


def test_a_conversation_is_cut_back_and_sent_again(network: Network) -> None:
    edge = network.edge(network.chain())
    with Conversation(edge) as straight, Conversation(edge) as talk:
        straight.infer(ids(5, 17, 3, 42))
        wanted = logits(straight.infer(ids(9)))
        talk.infer(ids(5, 17, 3, 42))
        talk.infer(ids(1))
        talk.infer(ids(2, 2))
        talk.drop(3)
        np.testing.assert_array_equal(logits(talk.infer(ids(9))), wanted)
        talk.steps -= 1  # as if the answer had been lost: what is sent again starts from the same
        np.testing.assert_array_equal(logits(talk.infer(ids(9))), wanted)
        talk.drop(100)
        with pytest.raises(ServingError, match="holds 5 positions, 100 are to be cut off"):
            talk.infer(ids(9))


def test_a_fork_goes_on_from_where_it_was_made(network: Network) -> None:
    edge = network.edge(network.chain())
    with Conversation(edge) as talk, Conversation(edge) as straight:
        talk.infer(ids(5, 17, 3, 42))
        straight.infer(ids(5, 17, 3, 42))
        other = talk.fork()
        talk.infer(ids(1))
        wanted = logits(straight.infer(ids(9)))
        np.testing.assert_array_equal(logits(other.infer(ids(9))), wanted)  # from before `talk`'s last
        again = other.fork()
        again.drop(1)
        np.testing.assert_array_equal(logits(again.infer(ids(9))), wanted)
        late = talk.fork()
        for _ in range(2):
            talk.infer(ids(1))
        with pytest.raises(ServingError, match="are not here") as refused:
            late.infer(ids(1))
        assert refused.value.status == 409
        for one in (other, again):
            one.close()
    assert kept(network, "cloud") == 0


def test_caches_are_kept_once(network: Network) -> None:
    edge = network.edge(network.chain())
    with Conversation(edge) as talk:
        talk.infer(ids(*range(40)))
        talk.infer(ids(1))
        stage = network.servers["cloud"].service.stage
        each = 4 * 41 * 16 * 4  # heads, positions, width of a head, bytes
        assert stage.kept_nbytes < 1.5 * each * len(stage.routes.default.legs[2].keeps)  # type: ignore[attr-defined]


def test_caches_beyond_a_tiers_memory_are_refused_before(network: Network, whole: LocalDecoder) -> None:
    edge = network.edge(network.chain())
    network.servers["cloud"].service.stage.states_nbytes = 50_000  # type: ignore[attr-defined]
    with Generator(ServedDecoder(edge)) as generator:
        with pytest.raises(RequestError, match=r"the states of 254 positions take \d+ bytes; at most 50000"):
            generator(PROMPTS[0], Sampling(max_new=250))
        assert edge.metrics.value("requests_total", 'result="answered"') == 0
        assert len(generator(PROMPTS[0], Sampling(max_new=4)).tokens) == 4


def test_a_tier_that_stays_away_is_told_in_time(network: Network) -> None:
    edge = network.edge(network.chain())
    generator = Generator(ServedDecoder(edge, patience_s=0.3))
    text = generator.stream(PROMPTS[0], Sampling(max_new=NEW))
    next(text)
    network.servers["cloud"].close()
    with pytest.raises(ServingError):
        list(text)
    assert eventually(lambda: kept(network, "near") <= 1)


def test_a_text_goes_on_at_home_where_the_slices_are(
    place: Path, expected: list[tuple[int, ...]], tmp_path: Path
) -> None:
    """The upper tiers stay away, and the edge has the slices of all cuts."""
    graph = load_graph(place / "decoder.onnx")
    made = recorded_plan(load_manifest(place / "slices"))
    slice_all_candidates(graph, made, [], tmp_path / "all")
    with ExitStack() as stack:
        network = Network(tmp_path / "all", stack)
        edge = network.edge(network.chain())
        with Generator(ServedDecoder(edge, patience_s=0.3)) as generator:
            said = []
            for at, piece in enumerate(generator.stream(PROMPTS[0], Sampling(max_new=NEW))):
                said.append(piece.token)
                if at == 5:
                    network.servers["cloud"].close()
                    network.servers["near"].close()
    assert tuple(said) == expected[0]
    assert edge.metrics.value("replays_total") == 1
