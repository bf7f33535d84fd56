"""Text from a decoder: the whole model's tokens, by whatever way they come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from dnnsplit_onnx.errors import InputError, RequestError
from dnnsplit_onnx.models import write_model
from dnnsplit_onnx.running.caches import caches_nbytes
from dnnsplit_onnx.running.generating import checks, drafting
from dnnsplit_onnx.running.generating.decoder import Signature, StatesLostError
from dnnsplit_onnx.running.generating.drafting import Draft
from dnnsplit_onnx.running.generating.folder import ModelFolder
from dnnsplit_onnx.running.generating.generator import Generator
from dnnsplit_onnx.running.generating.local import LocalDecoder
from dnnsplit_onnx.running.generating.opening import folder_of, open_decoder
from dnnsplit_onnx.running.generating.pieces import Words
from dnnsplit_onnx.running.generating.roles import Roles
from dnnsplit_onnx.running.generating.sampling import Sampling, choose
from dnnsplit_onnx.running.generating.scores import Candidates
from dnnsplit_onnx.running.generating.text import Text
from tests.running.decoders import POSITIONS, PROMPTS, VOCABULARY, make_decoder, write_tokenizer

NEW = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def whole(place: Path) -> LocalDecoder:
    return LocalDecoder.of_model(place / "decoder.onnx")


@pytest.fixture(scope="module")
def expected(place: Path) -> list[list[int]]:
    """Greedy continuations by onnxruntime alone, a token a run."""
    session = onnxruntime.InferenceSession(str(place / "decoder.onnx"))
    names = [value.name for value in session.get_outputs()]
    empty = {v.name: np.zeros((1, 4, 0, 16), np.float32) for v in session.get_inputs()[1:]}
    said = []
    for prompt in PROMPTS:
        caches, new, tokens = empty, list(prompt), []
        for _ in range(NEW):
            made = dict(zip(names, session.run(None, {"input_ids": np.array([new])} | caches), strict=True))
            new = [int(made["logits"][0, -1].argmax())]
            tokens += new
            caches = {name: made[name.replace("past_key_values", "present")] for name in caches}
        said.append(tokens)
    return said


def test_greedy_tokens_are_those_of_the_runtime(place: Path, expected: list[list[int]]) -> None:
    sampling = Sampling(max_new=NEW)
    for name in ("decoder.onnx", "slices"):
        with Generator.open(place / name) as generator:
            answers = [generator(prompt, sampling) for prompt in PROMPTS]
        assert [list(answer.tokens) for answer in answers] == expected
        assert {answer.finish for answer in answers} == {"length"}
    assert len({token for tokens in expected for token in tokens}) > 5  # it says something


def test_several_texts_at_a_time_are_the_same(place: Path, expected: list[list[int]]) -> None:
    with Generator.open(place / "slices") as generator:
        answers = generator.several(PROMPTS * 3, Sampling(max_new=NEW), concurrency=4)
        assert [list(answer.tokens) for answer in answers] == expected * 3


class Lossy:
    """A decoder that loses all states before some of its steps."""

    def __init__(self, inner: LocalDecoder, lost: Sequence[int]) -> None:
        self.inner, self.lost = inner, set(lost)
        self.signature, self.steps, self.again = inner.signature, 0, 0

    def talk(self, positions: int | None = None) -> Lossy.Talk:  # noqa: ARG002
        return self.Talk(self, self.inner)

    def replayed(self, tokens: int) -> None:
        self.again += tokens

    def close(self) -> None:
        pass

    class Talk:
        def __init__(self, decoder: Lossy, inner: LocalDecoder) -> None:
            self.decoder, self.inner, self.is_lost = decoder, inner.talk(), False

        def step(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
            self.decoder.steps += 1
            self.is_lost = self.is_lost or self.decoder.steps in self.decoder.lost
            if self.is_lost:
                raise StatesLostError("lost")
            return self.inner.step(inputs)

        def drop(self, count: int) -> None:
            self.inner.drop(count)

        def close(self) -> None:
            self.inner.close()


@pytest.mark.parametrize("lost", [(2,), (7, 8), (5, 6, 7, 20), (9, 10, 11, 12, 13)])
def test_lost_states_are_made_again(
    whole: LocalDecoder, expected: list[list[int]], lost: Sequence[int]
) -> None:
    decoder = Lossy(whole, lost)
    assert list(Generator(decoder)(PROMPTS[0], Sampling(max_new=NEW)).tokens) == expected[0]
    assert decoder.again > 0


def test_states_that_are_always_lost_are_told(whole: LocalDecoder) -> None:
    with pytest.raises(StatesLostError):
        Generator(Lossy(whole, range(2, 1000)))(PROMPTS[0])


class Wrong:
    """A draft of the right vocabulary that is right now and then."""

    def __init__(self, inner: LocalDecoder, wrong: int) -> None:
        self.inner, self.wrong, self.asked = inner, wrong, 0
        self.signature = inner.signature

    def talk(self, positions: int | None = None) -> Wrong.Talk:  # noqa: ARG002
        return self.Talk(self)

    def replayed(self, tokens: int) -> None:
        pass

    def close(self) -> None:
        pass

    class Talk:
        def __init__(self, decoder: Wrong) -> None:
            self.decoder, self.inner = decoder, decoder.inner.talk()

        def step(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
            made = self.inner.step(inputs)
            self.decoder.asked += 1
            return {"logits": -made["logits"]} if self.decoder.asked % self.decoder.wrong == 0 else made

        def drop(self, count: int) -> None:
            self.inner.drop(count)

        def close(self) -> None:
            self.inner.close()


@pytest.mark.parametrize("count", [1, 4, 8])
@pytest.mark.parametrize("wrong", [1, 3, 1000])
def test_drafts_change_no_token(
    whole: LocalDecoder, expected: list[list[int]], wrong: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = 0
    verify = drafting.verify

    def counted(*args: object) -> list[int]:
        nonlocal passes
        passes += 1
        return verify(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(drafting, "verify", counted)
    generator = Generator(whole, draft=Draft(Wrong(whole, wrong), count))
    for prompt, tokens in zip(PROMPTS, expected, strict=True):
        assert list(generator(prompt, Sampling(max_new=NEW)).tokens) == tokens
    if wrong == 1000:  # never wrong: each pass wins all that was proposed, but for near ties
        assert passes <= len(PROMPTS) * -(-(NEW - 1) // (count + 1)) + 2
    if wrong == 1:
        assert passes >= len(PROMPTS) * (NEW - 1)


def test_near_ties_are_decided_by_a_step_of_their_own() -> None:
    class Tied:
        """Two tokens so near that a pass over several takes the wrong one."""

        fed: list[int]

        def __init__(self) -> None:
            self.fed, self.passes = [], []

        def feed(self, ids: Sequence[int], wanted: int = 1) -> list[Candidates]:
            self.fed += ids
            self.passes.append(list(ids))
            best = np.array([1.0, 1.0001 if len(ids) > 1 else 0.9999, 0.0], np.float32)
            return [Candidates(best)] * wanted

        def drop(self, count: int) -> None:
            del self.fed[len(self.fed) - count :]

    text = Tied()
    assert drafting.verify(text, 2, [1, 1]) == [0]  # type: ignore[arg-type]
    assert text.passes == [[2, 1, 1], [2]]
    assert text.fed == [2]


def test_a_draft_that_does_not_fit_is_refused(whole: LocalDecoder, tmp_path: Path) -> None:
    other = Signature(
        whole.signature.inputs,
        (whole.signature.outputs[0].model_copy(update={"shape": ("batch", "sequence", 65)}),),
    )
    with pytest.raises(InputError, match="the draft has 64 tokens, and the model 65"):
        Draft(whole).check(other)
    ring = tuple(record.model_copy(update={"grows": None}) for record in whole.signature.records)
    with pytest.raises(InputError, match=r"`past_key_values\.0\.key` cannot be cut back"):
        Draft(whole).check(Signature(whole.signature.inputs, whole.signature.outputs, records=ring))
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g (float[1, 32] x) => (float[1, 8] y)'
        "{ y = com.microsoft.MatMulNBits <K = 32, N = 8, bits = 4, block_size = 32, accuracy_level = 4>"
        " (x, x, x) }"
    )
    onnx.save(model, tmp_path / "int4.onnx")
    with pytest.raises(InputError, match="accuracy_level"):
        drafting.check_exact([tmp_path / "int4.onnx"])


def test_text_is_cut_back_or_fed_again(whole: LocalDecoder) -> None:
    ring = tuple(record.model_copy(update={"grows": None}) for record in whole.signature.records)
    signature = whole.signature
    fixed = Signature(signature.inputs, signature.outputs, signature.states, ring)
    for decoder in (whole, LocalDecoder(whole._steps, fixed)):
        with Text(decoder, Roles(decoder.signature)) as text:
            text.feed([5, 17, 3, 42])
            text.feed([9])
            text.feed([8])
            text.drop(2)
            assert text.fed == [5, 17, 3, 42]
            again = text.feed([9])[-1]
            other = text.follow([5, 17, 1, 2])
            assert text.fed == [5, 17, 1, 2]
        with Text(whole, Roles(whole.signature)) as text:
            text.feed([5, 17, 3, 42])
            np.testing.assert_allclose(text.feed([9])[-1].logits, again.logits, atol=1e-5)
        with Text(whole, Roles(whole.signature)) as text:
            np.testing.assert_allclose(text.feed([5, 17, 1, 2])[-1].logits, other.logits, atol=1e-5)


def test_draws_follow_the_probabilities_and_the_seed() -> None:
    logits = Candidates(np.log(np.array([0.5, 0.2, 0.3], np.float32)))
    rng = np.random.default_rng(0)
    drawn = [choose(logits, Sampling(temperature=1), rng) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn) / 4000, [0.5, 0.2, 0.3], atol=0.03)
    assert {choose(logits, Sampling(temperature=1, top_p=0.5), rng) for _ in range(50)} == {0}
    assert {choose(logits, Sampling(temperature=1, top_p=0.6), rng) for _ in range(200)} == {0, 2}
    cold = [choose(logits, Sampling(temperature=1e-3), rng) for _ in range(50)]
    assert set(cold) == {0}
    with pytest.raises(InputError, match="the likeliest token alone"):
        choose(Candidates(None, np.array([3])), Sampling(temperature=1), rng)


def test_a_seed_gives_the_same_text_again(place: Path) -> None:
    with Generator.open(place / "slices") as sliced, Generator.open(place / "decoder.onnx") as one:
        sampling = Sampling(max_new=NEW, temperature=1.0, top_p=0.9, seed=7)
        assert sliced(PROMPTS[0], sampling).tokens == one(PROMPTS[0], sampling).tokens
        other = Sampling(max_new=NEW, temperature=1.0, top_p=0.9, seed=8)
        assert one(PROMPTS[0], other).tokens != one(PROMPTS[0], sampling).tokens


def test_words_come_and_end(place: Path, expected: list[list[int]]) -> None:
    pytest.importorskip("tokenizers")
    words = [f"w{token}" for token in expected[0]]
    tokenizer = write_tokenizer(place)
    with Generator.open(place / "slices", tokenizer=tokenizer) as generator:
        prompt = " ".join(f"w{token}" for token in PROMPTS[0])
        answer = generator(prompt, Sampling(max_new=NEW))
        assert list(answer.tokens) == expected[0]
        assert answer.text.split() == words
        pieces = list(generator.stream(prompt, Sampling(max_new=NEW)))
        assert "".join(piece.text for piece in pieces) == answer.text
        assert pieces[-1].finish == "length"
        stopped = generator(prompt, Sampling(max_new=NEW, stop=(f"{words[2]} {words[3]}",)))
        assert (stopped.text.split(), stopped.finish) == (words[:2], "stop")
        ended = generator(prompt, Sampling(max_new=NEW, stop_tokens=frozenset([expected[0][5]])))
        first = expected[0].index(expected[0][5])
        assert (list(ended.tokens), ended.finish) == (expected[0][:first], "stop")


@pytest.mark.parametrize(
    ("letters", "stop", "said", "is_ended"),
    [
        ("abcdef", ("cd",), "ab", True),
        ("abcabd", ("abd",), "abc", True),
        ("abab", ("abc",), "abab", False),
        ("hello", ("x", "lo", "ell"), "h", True),
        ("aaab", ("aab",), "a", True),
    ],
)
def test_a_stop_text_is_never_shown(letters: str, stop: tuple[str, ...], said: str, is_ended: bool) -> None:
    words = Words(lambda ids: "".join(letters[at] for at in ids), stop)
    pieces = []
    for at in range(len(letters)):
        pieces.append(words.add(at))
        if words.is_ended:
            break
    pieces.append(words.end())
    assert ("".join(pieces), words.is_ended) == (said, is_ended)


def test_letters_of_several_tokens_come_whole() -> None:
    raw = "a\N{GREEK SMALL LETTER ALPHA}\N{SNOWMAN}!".encode()
    words = Words(lambda ids: bytes(raw[at] for at in ids).decode(errors="replace"))
    pieces = [words.add(at) for at in range(len(raw))]
    assert pieces == ["a", "", "\N{GREEK SMALL LETTER ALPHA}", "", "", "\N{SNOWMAN}", "!"]
    assert words.end() == ""


def test_what_cannot_be_read_is_refused(place: Path, whole: LocalDecoder) -> None:
    generator = Generator(whole, folder=folder_of(place / "decoder.onnx"))
    assert generator.folder.longest == POSITIONS  # the rows of its table
    assert folder_of(place / "slices").longest == POSITIONS
    with pytest.raises(InputError, match="the prompt has 256 tokens; the model has 256 positions"):
        generator([1] * POSITIONS)
    answer = generator([1] * (POSITIONS - 3), Sampling(max_new=50))
    assert (len(answer.tokens), answer.finish) == (3, "length")
    for prompt, said in (([], "no tokens"), ([64], "token 64 is none of the model's 64"), ([-1], "token -1")):
        with pytest.raises(InputError, match=said):
            generator(prompt)
    with pytest.raises(InputError, match="words need a tokenizer"):
        generator("words")


def test_a_tokenizer_of_another_vocabulary_is_refused(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(InputError, match="the tokenizer has 65 tokens, and the model 64"):
        Generator.open(place / "slices", tokenizer=write_tokenizer(tmp_path, VOCABULARY + 1))


def test_caches_beyond_memory_are_refused_before(
    whole: LocalDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = whole.signature
    needed = caches_nbytes(signature.states, signature.records, 100)
    assert needed == 6 * 4 * 100 * 16 * 4
    monkeypatch.setattr(checks, "free_nbytes", lambda: needed - 1)
    generator = Generator(whole)
    with pytest.raises(RequestError, match=r"caches of 100 tokens take 0\.000154 GB"):
        generator([1] * 90, Sampling(max_new=10))
    monkeypatch.setattr(checks, "free_nbytes", lambda: needed)
    assert len(generator([1] * 90, Sampling(max_new=10)).tokens) == 10


MASKED = """<ir_version: 8, opset_import: ["" : 17]>
g (int64[batch, sequence] input_ids, int64[batch, total] attention_mask, int64[batch, sequence] position_ids,
   float[batch, past, 1] past_0)
  => (float[batch, sequence, 9] logits, float[batch, total, 1] present_0)
<int64[1] last = {-1}, float[9] words = {0, 1, 2, 3, 4, 5, 6, 7, 8}, float nine = {9.0}, int64[1] one = {1}> {
    read = Cast <to = 1> (input_ids)
    new = Unsqueeze (read, last)
    present_0 = Concat <axis = 1> (past_0, new)
    seen = ReduceSum <keepdims = 1> (present_0, one)
    mask = Cast <to = 1> (attention_mask)
    length = ReduceSum <keepdims = 1> (mask, one)
    long = Unsqueeze (length, last)
    at = Cast <to = 1> (position_ids)
    place = Unsqueeze (at, last)
    a = Add (seen, long)
    b = Add (a, place)
    c = Mod <fmod = 1> (b, nine)
    d = Sub (words, c)
    e = Abs (d)
    logits = Neg (e)
}"""


def masked(prompt: Sequence[int], count: int) -> Iterator[int]:
    """What the model above says: the sum of tokens, their number and the last place, modulo 9."""
    text = list(prompt)
    for _ in range(count):
        text.append((sum(text) + len(text) + len(text) - 1) % 9)
        yield text[-1]


def test_masks_and_positions_are_filled_in(tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(MASKED), tmp_path / "masked.onnx")
    with Generator.open(tmp_path / "masked.onnx") as generator:
        assert list(generator([1, 2, 3], Sampling(max_new=12)).tokens) == list(masked([1, 2, 3], 12))


def test_widths_that_only_have_names_are_found(tmp_path: Path) -> None:
    """As onnxruntime-genai leaves the size of a head."""
    text = MASKED.replace("past, 1] past_0", "past, width] past_0").replace("total, 1] p", "total, width] p")
    onnx.save(onnx.parser.parse_model(text), tmp_path / "masked.onnx")
    with Generator.open(tmp_path / "masked.onnx") as generator:
        assert list(generator([1, 2, 3], Sampling(max_new=12)).tokens) == list(masked([1, 2, 3], 12))


def test_a_model_without_caches_is_fed_the_whole_text(tmp_path: Path) -> None:
    text = MASKED.replace(",\n   float[batch, past, 1] past_0", "").replace(
        ", float[batch, total, 1] present_0", ""
    )
    text = text.replace("present_0 = Concat <axis = 1> (past_0, new)", "present_0 = Identity (new)")
    onnx.save(onnx.parser.parse_model(text), tmp_path / "plain.onnx")
    with Generator.open(tmp_path / "plain.onnx") as generator:
        assert list(generator([1, 2, 3], Sampling(max_new=12)).tokens) == list(masked([1, 2, 3], 12))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("position_ids", "pixel_values", "the model reads `pixel_values`, and nothing tells"),
        ("attention_mask", "colours", "no input of the model is that of token ids|`colours`"),
        ("logits", "numbers", None),
    ],
)
def test_other_models_are_refused_by_name(tmp_path: Path, old: str, new: str, said: str | None) -> None:
    onnx.save(onnx.parser.parse_model(MASKED.replace(old, new)), tmp_path / "other.onnx")
    decoder = open_decoder(tmp_path / "other.onnx")
    if said is None:  # the one output of three axes
        assert list(Generator(decoder)([1], Sampling(max_new=2)).tokens) == list(masked([1], 2))
        return
    with pytest.raises(InputError, match=said):
        Generator(decoder)


def test_files_beside_the_model_are_read(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    write_model("tiny_decoder", tmp_path / "model.onnx")
    write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"eos_token_id": [3, 4], "max_position_embeddings": 100}')
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "chat_template": "{{ bos_token }}{% for m in messages %} w1 {{ m.content }}{% endfor %}",
                "bos_token": {"content": "w9"},
            }
        )
    )
    said = folder_of(tmp_path / "model.onnx")
    assert (said.ends, said.longest, said.tokenizer) == ({3, 4}, 100, tmp_path / "tokenizer.json")
    with Generator.open(tmp_path / "model.onnx") as generator:
        assert generator.encode([{"role": "user", "content": "w5 w6"}]) == [9, 1, 5, 6]
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    with (
        Generator.open(tmp_path / "model.onnx") as generator,
        pytest.raises(InputError, match=r"refuses.*: no"),
    ):
        generator.encode([{"role": "user", "content": "w5"}])
    (tmp_path / "chat_template.jinja").write_text("{{ messages.__class__.__mro__ }}")
    with Generator.open(tmp_path / "model.onnx") as generator, pytest.raises(InputError, match="refuses"):
        generator.encode([{"role": "user", "content": "w5"}])
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot read"):
        folder_of(tmp_path / "model.onnx")


def test_the_end_of_a_text_ends_it(place: Path, whole: LocalDecoder, expected: list[list[int]]) -> None:
    generator = Generator(whole, folder=ModelFolder(ends=frozenset([expected[0][4]])))
    first = expected[0].index(expected[0][4])
    answer = generator(PROMPTS[0], Sampling(max_new=NEW))
    assert (list(answer.tokens), answer.finish) == (expected[0][:first], "stop")
