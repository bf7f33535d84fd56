"""Text after an encoder: what it gives reaches the decoder once, by whatever names it has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.running.generating.drafting import Draft
from dnnsplit_onnx.running.generating.folder import read_folders
from dnnsplit_onnx.running.generating.generator import Generator
from dnnsplit_onnx.running.generating.opening import open_decoder
from dnnsplit_onnx.running.generating.sampling import Sampling
from tests.running.encoders import PAIRS, cut_after_encoder, said, write_pair
from tests.running.stateful import merged_decoder
from tests.running.test_generating import Lossy

NEW = 12
START = (4,)
PROMPTS = ([1, 2, 3], [8], [5, 5, 5, 1])
SAMPLING = Sampling(max_new=NEW, start=START)


@pytest.mark.parametrize("name", sorted(set(PAIRS) - {"sound"}))
def test_the_decoder_reads_what_the_encoder_gives(tmp_path: Path, name: str) -> None:
    encoder, decoder = write_pair(tmp_path, name)
    with Generator.open(decoder, encoder=encoder) as generator:
        for prompt in PROMPTS:
            assert generator(prompt, SAMPLING).tokens == said(prompt, START, NEW)
        assert generator([1], Sampling(max_new=3, start=(4, 5))).tokens == said([1], (4, 5), 3)
        answers = list(generator.several(PROMPTS * 3, SAMPLING, concurrency=3))
    assert [answer.tokens for answer in answers] == [said(prompt, START, NEW) for prompt in PROMPTS * 3]
    assert [answer.prompt_tokens for answer in answers[:3]] == [3, 1, 4]


def test_slices_of_the_decoder_say_the_same(tmp_path: Path) -> None:
    encoder, decoder = write_pair(tmp_path)
    slices = cut_after_encoder(decoder, tmp_path / "slices")
    with Generator.open(slices, encoder=encoder) as generator:
        for prompt in PROMPTS:
            assert generator(prompt, SAMPLING).tokens == said(prompt, START, NEW)


def test_inputs_that_are_no_text_come_by_name(tmp_path: Path) -> None:
    encoder, decoder = write_pair(tmp_path, "sound")
    heard = np.array([[3.0, 1.0, 7.0]], np.float32)
    with Generator.open(decoder, encoder=encoder) as generator:
        given = {"input_features": heard, "attention_mask": np.array([[1, 1, 1]])}
        answer = generator(given, SAMPLING)
        assert (answer.tokens, answer.prompt_tokens) == (said([3, 1, 7], START, NEW), 0)
        given["attention_mask"] = np.array([[1, 0, 1]])  # and what is padding is not heard
        assert generator(given, SAMPLING).tokens == said([3, 7], START, NEW)
        with pytest.raises(InputError, match="reads `input_features`, `attention_mask` and no tokens"):
            generator([1, 2], SAMPLING)
        with pytest.raises(InputError, match="`attention_mask` is missing"):
            generator({"input_features": heard}, SAMPLING)


@pytest.mark.parametrize("lost", [(1,), (2,), (5, 6, 9)])
def test_what_the_encoder_gave_is_brought_again_where_a_tier_lost_it(
    tmp_path: Path, lost: tuple[int, ...]
) -> None:
    encoder, decoder = write_pair(tmp_path)
    generator = Generator(Lossy(open_decoder(decoder), lost), encoder=open_decoder(encoder))  # type: ignore[arg-type]
    assert generator([1, 2, 3], SAMPLING).tokens == said([1, 2, 3], START, NEW)


def test_a_merged_decoder_attends_to_what_the_encoder_gave(tmp_path: Path) -> None:
    """Its first step makes keys of the encoder's text, and later ones return an empty constant for them."""
    encoder = """<ir_version: 8, opset_import: ["" : 17]>
    g (int64[1, n] input_ids) => (float[1, n, 4] last_hidden_state)
    <int64[1] last = {-1}, float[4] width = {0.5, -1.5, 2.25, 3.0}> {
        read = Cast <to = 1> (input_ids)
        row = Unsqueeze (read, last)
        wave = Mul (row, width)
        last_hidden_state = Sin (wave)
    }"""
    onnx.save(onnx.parser.parse_model(encoder), tmp_path / "encoder.onnx")
    onnx.save(merged_decoder(), tmp_path / "decoder.onnx")
    heard, session = (
        onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx")) for name in ("encoder", "decoder")
    )
    names = [value.name for value in session.get_outputs()]
    answers = set()
    for prompt in PROMPTS:
        (hidden,) = heard.run(None, {"input_ids": np.array([prompt])})
        caches, token, expected = [np.zeros((1, 0, 4), np.float32)] * 2, 4, []
        for at in range(NEW):
            past = dict(
                zip(("past_key_values.0.decoder.key", "past_key_values.0.encoder.key"), caches, strict=False)
            )
            step = {"input_ids": np.array([[token]]), "use_cache_branch": np.array([at > 0])}
            made = dict(
                zip(names, session.run(None, step | past | {"encoder_hidden_states": hidden}), strict=False)
            )
            token = int(made["logits"][0, -1].argmax())
            expected.append(token)
            caches = [made["present.0.decoder.key"], caches[1] if at else made["present.0.encoder.key"]]
        with Generator.open(tmp_path / "decoder.onnx", encoder=tmp_path / "encoder.onnx") as generator:
            assert list(generator(prompt, SAMPLING).tokens) == expected
        answers.add(tuple(expected))
    assert len(answers) > 1  # it attends


@pytest.mark.parametrize(
    ("generation", "config", "starts"),
    [
        ({"decoder_start_token_id": 2}, {"decoder_start_token_id": 7}, (2,)),
        ({}, {"decoder_start_token_id": 7, "forced_bos_token_id": 0}, (7, 0)),
        ({"bos_token_id": 3}, {"decoder_start_token_id": 7}, (7,)),
        ({"bos_token_id": 3}, {}, (3,)),
        ({"decoder_start_token_id": [1, 2]}, {}, ()),
        ({}, {"eos_token_id": 3}, ()),
    ],
)
def test_the_folder_says_what_an_answer_begins_with(
    tmp_path: Path, generation: dict[str, object], config: dict[str, object], starts: tuple[int, ...]
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_folders([tmp_path]).starts == starts
    encoder, decoder = write_pair(tmp_path)
    with Generator.open(decoder, encoder=encoder) as generator:
        if starts:
            assert generator([1, 2], Sampling(max_new=4, stop_tokens=frozenset())).tokens == said(
                [1, 2], starts, 4
            )
            return
        with pytest.raises(InputError, match="nothing tells what an answer begins with"):
            generator([1, 2])


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    encoder, decoder = write_pair(tmp_path)
    with pytest.raises(InputError, match="reads `encoder_hidden_states`, which an encoder gives"):
        Generator.open(decoder)
    small = Draft(open_decoder(_alone(tmp_path)))
    with pytest.raises(InputError, match="drafts are for decoders that stand alone"):
        Generator(open_decoder(decoder), draft=small, encoder=open_decoder(encoder))
    with pytest.raises(InputError, match="the decoder reads nothing that an encoder gives"):
        Generator.open(_alone(tmp_path), encoder=encoder)
    text = PAIRS["masked"][1].replace("encoder_attention_mask)", "encoder_attention_mask, float[1] cross)", 1)
    onnx.save(onnx.parser.parse_model(text), tmp_path / "more.onnx")
    with pytest.raises(InputError, match=r"`\w+`, which the encoder does not give") as caught:
        Generator.open(tmp_path / "more.onnx", encoder=encoder)
    assert caught.value.hint == "it gives `last_hidden_state`"
    wide = (
        PAIRS["masked"][0]
        .replace("source, 2] last", "source, 4] last")
        .replace("(one, other)", "(one, one, other, other)")
    )
    onnx.save(onnx.parser.parse_model(wide), tmp_path / "wide.onnx")
    with pytest.raises(
        InputError, match=r"of shape \[1, source, 2\], .* `last_hidden_state` of \[1, source, 4\]"
    ):
        Generator.open(decoder, encoder=tmp_path / "wide.onnx")
    with Generator.open(decoder, encoder=encoder) as generator:
        for prompt, sampling, message in (
            ([], SAMPLING, "the prompt has no tokens"),
            ([1], Sampling(start=()), "nothing tells what an answer begins with"),
            ([1], Sampling(start=(9,)), "token 9 is none of the model's 9"),
        ):
            with pytest.raises(InputError, match=message):
                generator(prompt, sampling)
    alone = Generator(open_decoder(_alone(tmp_path)))
    with pytest.raises(InputError, match="there is no encoder"):
        alone([1], Sampling(start=(1,)))


def _alone(folder: Path) -> Path:
    """A decoder that reads nothing of an encoder."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (int64[1, s] input_ids) => (float[1, s, 9] logits)
    <int64[1] last = {-1}, float[9] words = {0, 1, 2, 3, 4, 5, 6, 7, 8}> {
        read = Cast <to = 1> (input_ids)
        row = Unsqueeze (read, last)
        far = Sub (words, row)
        by = Abs (far)
        logits = Neg (by)
    }"""
    onnx.save(onnx.parser.parse_model(text), folder / "alone.onnx")
    return folder / "alone.onnx"
