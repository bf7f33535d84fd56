"""`generate`: what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from dnnsplit_onnx.running.generating.generator import Generator
from dnnsplit_onnx.running.generating.sampling import Sampling
from tests.cli.conftest import Run
from tests.running.decoders import make_decoder, write_tokenizer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def said(place: Path) -> list[int]:
    with Generator.open(place / "decoder.onnx") as generator:
        return list(generator([5, 17, 3], Sampling(max_new=6)).tokens)


@pytest.mark.parametrize("name", ["decoder.onnx", "slices"])
@pytest.mark.parametrize("more", [(), ("--draft", "zoo:tiny_decoder", "--draft-tokens", 3)])
def test_tokens_are_printed(run: Run, place: Path, said: list[int], name: str, more: tuple[object]) -> None:
    ended = run("generate", place / name, "--tokens", "5,17,3", "--max-new", 6, *more)
    assert ended.code == 0
    assert [int(word) for word in ended.out.split()] == said
    assert ended.err.startswith("6 tokens after 3: the first in ")


def test_words_and_json(run: Run, place: Path, said: list[int]) -> None:
    pytest.importorskip("tokenizers")
    tokenizer = write_tokenizer(place)
    words = ("generate", place / "slices", "--prompt", "w5 w17 w3", "--tokenizer", tokenizer, "--max-new", 6)
    assert run(*words).out.split() == [f"w{token}" for token in said]
    found = run(*words, "--json").json
    assert found["tokens"] == said
    assert (found["finish"], found["prompt_tokens"]) == ("length", 3)
    ended = run(*words, "--stop", f"w{said[1]}")
    assert ended.out.split() == [f"w{said[0]}"]
    drawn = run(*words, "--temperature", 1, "--seed", 5).out
    assert drawn == run(*words, "--temperature", 1, "--seed", 5).out != run(*words).out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "there is nothing to continue"),
        (("--tokens", "1", "--prompt", "x"), "or twice"),
        (("--tokens", "one"), "`one` are no token ids"),
        (("--tokens", "99"), "token 99 is none of the model's 64"),
        (("--tokens", "1", "--top-p", "2"), "top-p 2.0"),
        (("--tokens", "1", "--stop", "x"), "needs a tokenizer"),
    ],
)
def test_what_is_wrong_is_told(run: Run, place: Path, words: tuple[str], said: str, tmp_path: Path) -> None:
    (place / "tokenizer.json").unlink(missing_ok=True)
    ended = run("generate", place / "slices", *words)
    assert ended.code == 2
    assert said in ended.err


def test_places_that_are_none_are_told(run: Run, place: Path, tmp_path: Path) -> None:
    for where, said in ((tmp_path, "without manifest.json"), (tmp_path / "x", "no such folder or file")):
        ended = run("generate", where, "--tokens", "1")
        assert (ended.code, said in ended.err) == (2, True)
    ended = run("generate", place / "decoder.onnx", "--tokens", "1", "--url", "http://127.0.0.1:1")
    assert (ended.code, "a whole model has no next tier" in ended.err) == (2, True)
