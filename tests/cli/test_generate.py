"""`generate`: what it prints, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.running.generating.generator import Generator
from dnnsplit_onnx.running.generating.sampling import Sampling
from tests.cli.conftest import Run
from tests.running.decoders import make_decoder, write_tokenizer
from tests.running.encoders import said as spoken
from tests.running.encoders import write_pair


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
    pytest.importorskip("tokenizers", reason="needs tokenizers: pip install 'dnnsplit-onnx[generate]'")
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


def test_an_encoder_reads_the_prompt(run: Run, tmp_path: Path) -> None:
    encoder, decoder = write_pair(tmp_path)
    words = ("generate", decoder, "--encoder", encoder, "--max-new", 8)
    ended = run(*words, "--tokens", "1,2,3", "--start", "4")
    assert tuple(int(word) for word in ended.out.split()) == spoken([1, 2, 3], (4,), 8)
    for more, message in (
        (("--tokens", "1"), "nothing tells what an answer begins with"),
        (("--tokens", "1", "--start", "4", "--draft", "zoo:tiny_decoder"), "stand alone"),
    ):
        ended = run(*words, *more)
        assert (ended.code, message in ended.err) == (2, True)
    ended = run("generate", decoder, "--tokens", "1")
    assert (ended.code, "which an encoder gives" in ended.err) == (2, True)
    ended = run("generate", decoder, "--tokens", "1", "--start", "4")
    assert (ended.code, "there is no encoder" in ended.err) == (2, True)
    (tmp_path / "sound").mkdir()
    encoder, decoder = write_pair(tmp_path / "sound", "sound")
    heard = {"input_features": np.array([[3, 1]], np.float32), "attention_mask": np.ones((1, 2), np.int64)}
    np.savez(tmp_path / "heard.npz", **heard)
    words = ("generate", decoder, "--encoder", encoder, "--start", "4", "--max-new", 8)
    ended = run(*words, "--input", tmp_path / "heard.npz")
    assert tuple(int(word) for word in ended.out.split()) == spoken([3, 1], (4,), 8)
    write_tokenizer(tmp_path / "sound", 9)
    ended = run(*words, "--serve", 0)
    assert (ended.code, "clients send words" in ended.err) == (2, True)


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
    for where in (tmp_path, tmp_path / "x"):
        ended = run("generate", where, "--tokens", "1")
        assert (ended.code, "folder" in ended.err) == (2, True)
    ended = run("generate", place / "decoder.onnx", "--tokens", "1", "--url", "http://127.0.0.1:1")
    assert (ended.code, "a whole model has no next tier" in ended.err) == (2, True)


def test_a_server_of_text_answers_until_it_is_told_to_stop(place: Path, said: list[int]) -> None:
    pytest.importorskip("tokenizers", reason="needs tokenizers: pip install 'dnnsplit-onnx[generate]'")
    write_tokenizer(place)
    words = [sys.executable, "-m", "dnnsplit_onnx", "generate", place / "slices", "--serve", "0", "--json"]
    tokenizer = ["--tokenizer", place / "tokenizer.json"]
    with subprocess.Popen([*words, *tokenizer], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            asked = {"prompt": "w5 w17 w3", "temperature": 0, "max_tokens": 6}
            request = urllib.request.Request(
                f"{url}/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                found = json.loads(answer.read())
            assert found["choices"][0]["text"].split() == [f"w{token}" for token in said]
        finally:
            process.terminate()
        assert process.wait(60) == 0


def test_a_server_takes_no_prompt(run: Run, place: Path) -> None:
    ended = run("generate", place / "slices", "--serve", 0, "--tokens", "1")
    assert (ended.code, "prompts come from clients" in ended.err) == (2, True)
    (place / "tokenizer.json").unlink(missing_ok=True)
    ended = run("generate", place / "slices", "--serve", 0)
    assert (ended.code, "no tokenizer" in ended.err) == (2, True)
    write_tokenizer(place)
    words = ("generate", place / "slices", "--tokenizer", place / "tokenizer.json", "--serve", 0)
    ended = run(*words, "--host", "0.0.0.0")
    assert (ended.code, "without TLS" in ended.err) == (2, True)


def test_split_puts_a_head_on_the_top_slice(run: Run, place: Path, tiers: Path, tmp_path: Path) -> None:
    sizes = ("--bind", "batch=1", "--bind", "sequence=1", "--bind", "past_sequence=8")
    words = ("split", place / "decoder.onnx", "--tiers", tiers, "--at", "layer1_add2", *sizes)
    for more in ((), ("--all-candidates",)):
        found = run(*words, "--head", "topk:2", "-o", tmp_path / "out", "--force", "--json", *more).json
        assert found["verification"]["bitwise"]
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert manifest["head"]["kind"] == "topk"
        names = {port["name"] for port in manifest["slices"][-1]["outputs"]}
        assert {"logits_top_tokens", "logits_top_logits"} <= names
    ended = run(*words, "--head", "best", "-o", tmp_path / "other")
    assert (ended.code, "no head is named `best`" in ended.err) == (2, True)
