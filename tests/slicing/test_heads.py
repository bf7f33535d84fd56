"""Heads: tokens in the place of logits, as the whole model would choose them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx import load_graph, load_manifest, verify
from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.running.generating.drafting import Draft
from dnnsplit_onnx.running.generating.generator import Generator
from dnnsplit_onnx.running.generating.local import LocalDecoder
from dnnsplit_onnx.running.generating.sampling import Sampling
from dnnsplit_onnx.running.steps import Steps
from dnnsplit_onnx.slicing.heads import head_of
from tests.running.decoders import PROMPTS, cut_decoder, make_decoder

HEADS = ("argmax", "topk:3", "last")
IDS = {"input_ids": np.array([[5, 17, 3, 42]])}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_decoder(tmp_path_factory.mktemp("decoder"))
    for head in HEADS:
        cut_decoder(folder / "decoder.onnx", folder / head, head=head)
    return folder


@pytest.fixture(scope="module")
def logits(place: Path) -> np.ndarray:
    return Steps.open(place / "slices")(IDS)["logits"]


def test_a_head_returns_what_the_logits_say(place: Path, logits: np.ndarray) -> None:
    made = {head: Steps.open(place / head)(IDS) for head in HEADS}
    np.testing.assert_array_equal(made["argmax"]["logits_token"], logits.argmax(axis=-1))
    order = np.argsort(-logits, axis=-1, kind="stable")[..., :3]
    np.testing.assert_array_equal(made["topk:3"]["logits_top_tokens"], order)
    best = np.take_along_axis(logits, order, axis=-1)
    np.testing.assert_array_equal(made["topk:3"]["logits_top_logits"], best)
    np.testing.assert_array_equal(made["last"]["logits_last"], logits[:, -1:])
    for head in HEADS:
        whole = Steps.of_whole(place / "decoder.onnx", load_manifest(place / head))(IDS)
        assert {n: a.tobytes() for n, a in whole.items()} == {n: a.tobytes() for n, a in made[head].items()}


@pytest.mark.parametrize("head", HEADS)
def test_the_proof_is_of_what_comes_back(place: Path, head: str) -> None:
    found = verify(place / head)
    assert found.passed
    assert found.bitwise
    manifest = load_manifest(place / head)
    assert manifest.head is not None
    assert {check.name for check in found.outputs} >= set(manifest.head.outputs)
    assert "logits" not in {port.name for port in manifest.model.outputs}
    for record in manifest.slices:
        onnx.checker.check_model(place / head / record.file)


@pytest.mark.parametrize("head", HEADS)
def test_text_is_the_same(place: Path, head: str) -> None:
    sampling = Sampling(max_new=12)
    with Generator.open(place / "decoder.onnx") as whole, Generator.open(place / head) as generator:
        for prompt in PROMPTS:
            assert generator(prompt, sampling).tokens == whole(prompt, sampling).tokens


def test_few_tokens_are_drawn_from_and_verified(place: Path) -> None:
    draft = Draft(LocalDecoder.of_model(place / "decoder.onnx"))
    with Generator.open(place / "decoder.onnx") as whole:
        expected = whole(PROMPTS[0], Sampling(max_new=12)).tokens
        drawn = whole(PROMPTS[0], Sampling(max_new=12, temperature=1e-3, seed=1)).tokens
    few = LocalDecoder.of_slices(place / "topk:3")
    assert Generator(few, draft=draft)(PROMPTS[0], Sampling(max_new=12)).tokens == expected
    assert Generator(few)(PROMPTS[0], Sampling(max_new=12, temperature=1e-3, seed=1)).tokens == drawn
    with pytest.raises(InputError, match="token 64 is none of the model's 64"):
        Generator(few)([64])
    with pytest.raises(InputError, match="return too little"):
        Generator(LocalDecoder.of_slices(place / "argmax"), draft=draft)
    with pytest.raises(InputError, match="the likeliest token alone"):
        Generator.open(place / "argmax")(PROMPTS[0], Sampling(temperature=1))


def test_half_precision_is_compared_as_it_is(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (int64[batch, sequence] input_ids, float16[4, 16] words) => (float16[batch, sequence, 16] logits) {
        logits = Gather (words, input_ids)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "half.onnx")
    graph = load_graph(tmp_path / "half.onnx")
    head = head_of(graph, "argmax")
    assert head is not None
    from dnnsplit_onnx.runtime.sessions import open_session
    from dnnsplit_onnx.slicing.heads import append_head

    session = open_session(tmp_path / "half.onnx", rewrite=lambda model: append_head(model, head))
    words = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float16)
    ids = np.array([[0, 1, 2, 3]])
    made = session.run_arrays({"input_ids": ids, "words": words})
    np.testing.assert_array_equal(made["logits_token"], words.argmax(axis=-1)[None])


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("best", "no head is named `best`"),
        ("topk", "no head is named `topk`"),
        ("topk:0", "no head is named"),
        ("topk:65", "more tokens than the 64 that `logits` has"),
    ],
)
def test_heads_that_are_none_are_refused(place: Path, head: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        head_of(load_graph(place / "decoder.onnx"), head)


def test_a_model_without_logits_is_refused(tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y) { y = Relu (x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    with pytest.raises(InputError, match="no output of the model is that of logits"):
        head_of(load_graph(tmp_path / "model.onnx"), "argmax")
    assert head_of(load_graph(tmp_path / "model.onnx"), "full") is None
