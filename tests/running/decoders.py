"""The small decoder of the zoo cut over three tiers, and a tokenizer for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dnnsplit_onnx import plan, slice_model
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.models import write_model
from dnnsplit_onnx.work.cuts import parted_states

TIERS = ("edge", "near", "cloud")
#: Of the small decoder.
VOCABULARY, POSITIONS = 64, 256
PROMPTS = ([5, 17, 3, 42], [9], [60, 1, 9, 9, 9, 2, 33], [7, 7])


def topology() -> dict[str, object]:
    return {
        "tier": [{"name": name, "gflops": 10.0**at} for at, name in enumerate(TIERS)],
        "link": [{"bandwidth_mbps": 10.0}] * 2,
    }


def make_decoder(place: Path) -> Path:
    """Writes `decoder.onnx` and its slices in `slices`; returns the place."""
    write_model("tiny_decoder", place / "decoder.onnx")
    cut_decoder(place / "decoder.onnx", place / "slices")
    return place


def cut_decoder(model: Path, output: Path, **options: object) -> None:
    """Cuts a decoder in three, each part with caches of its own."""
    graph = load_graph(model)
    whole = np.flatnonzero(~parted_states(graph))
    cuts = [int(whole[len(whole) // 3]), int(whole[2 * len(whole) // 3])]
    sizes = {"batch": 1, "sequence": 1, "past_sequence": 16}
    made = plan(graph, parse_topology(topology(), "test"), cuts=cuts, bindings=sizes)
    slice_model(graph, made, output, **options)  # type: ignore[arg-type]


def write_tokenizer(folder: Path, words: int = VOCABULARY) -> Path:
    """A tokenizer of words w0, w1, ...; the last is the end of a text, the one before it unknown."""
    vocabulary = {f"w{at}": at for at in range(words - 2)} | {"[UNK]": words - 2, "[END]": words - 1}
    added = {"id": words - 1, "content": "[END]", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added | flags],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(data))
    return path
