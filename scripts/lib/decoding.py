"""Small decoders of random weights, cut and served behind emulated links, for the benches of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dnnsplit_onnx import analyse, plan, slice_model
from dnnsplit_onnx.converters import convert
from dnnsplit_onnx.converters.branches import choose_branches
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.deploy.local import LocalTiers
from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.edge.talking import ServedDecoder
from dnnsplit_onnx.work.cuts import UNKNOWN, parted_states
from tests.serving.emulation import Relay, Way

VOCABULARY, LAYERS, WIDTH, HEADS = 199, 4, 64, 4
ONE = SessionOptions(threads=1)
SIZES = {"batch": 1, "sequence": 1, "past_sequence": 64}
PATIENCE_S = 120.0


#: Decoders of three families, and a draft for the second: a layer of half the width.
FAMILIES = ("gpt2", "llama", "qwen2")
SMALL, WIDE = "small", "wide"


def configurations() -> dict[str, Any]:
    """The decoders by name: small ones, one that is smaller, and one whose weights take a while to read."""
    from transformers import GPT2Config, LlamaConfig, Qwen2Config

    new = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
    }
    old = {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 256}
    return {
        "gpt2": GPT2Config(**old, initializer_range=0.3),
        "llama": LlamaConfig(**new),
        "qwen2": Qwen2Config(**new),
        SMALL: LlamaConfig(**{**new, "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64}),
        WIDE: LlamaConfig(**{**new, "num_hidden_layers": 6, "hidden_size": 512, "intermediate_size": 1024}),
    }


def prepare(name: str, folder: Path, tiers: int = 3) -> Path:
    """Writes `NAME/model.onnx` and its slices; returns the folder of slices."""
    import torch
    from transformers import AutoModelForCausalLM

    place, output = folder / name, folder / name / f"slices{tiers}"
    if not (place / "model.onnx").exists():
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(configurations()[name]).save_pretrained(place / "hf")
        if tiers == 1:  # never cut: nothing to copy
            convert(place / "hf", place / "model.onnx", with_past=True, force=True)
        else:
            (place / "plain").mkdir(exist_ok=True)
            convert(place / "hf", place / "plain" / "model.onnx", with_past=True, force=True)
            choose_branches(place / "plain", {}, place / "model.onnx", copies=True, force=True)
        (place / "config.json").write_bytes((place / "hf" / "config.json").read_bytes())
    cut_evenly(place / "model.onnx", output, tiers, SIZES)
    return output


def cut_evenly(model: Path, output: Path, tiers: int, sizes: Mapping[str, int]) -> None:
    """Writes slices of about as much of the model each, cut where least crosses and no state is parted."""
    analysis = analyse(model, sizes)
    graph, nbytes = analysis.graph, analysis.cut_nbytes()
    whole = [at for at in np.flatnonzero(~parted_states(graph)) if nbytes[at] != UNKNOWN]
    near = len(whole) // (4 * tiers)
    topology = {
        "tier": [{"name": f"tier{at}", "gflops": 10.0} for at in range(tiers)],
        "link": [{"bandwidth_mbps": 10.0}] * (tiers - 1),
    }
    middles = [at * len(whole) // tiers for at in range(1, tiers)]
    cuts = [int(min(whole[at - near : at + near + 1], key=lambda cut: nbytes[cut])) for at in middles]
    made = plan(graph, parse_topology(topology, "bench"), cuts=cuts, bindings=sizes, pareto=False)
    slice_model(graph, made, output, force=True)


def served(slices: Path, url: str | None) -> ServedDecoder:
    return ServedDecoder(Edge(slices, url, options=ONE, deadline_s=60), patience_s=PATIENCE_S)


class Counted(Way):
    """One direction of a link that knows what it carried."""

    nbytes = 0

    def release_at(self, nbytes: int, mbps: float, delay_ms: float) -> float:
        """When what is sent now arrives."""
        self.nbytes += nbytes
        return super().release_at(nbytes, mbps, delay_ms)


@contextmanager
def linked(slices: Path, mbps: float, delay_ms: float) -> Iterator[tuple[Edge, tuple[Counted, Counted]]]:
    """An edge, and a tier behind an emulated link, there and back; behind none where its rate is 0."""
    with LocalTiers(slices, ("--threads", "1")) as tiers:
        if not mbps:
            with Edge(slices, tiers.url, options=ONE, deadline_s=60) as edge:
                yield edge, (Counted(), Counted())
            return
        port = int((tiers.url or "").rpartition(":")[2])
        with Relay(port, mbps, delay_ms) as relay:
            relay._ways = ways = Counted(), Counted()
            with Edge(slices, relay.url, options=ONE, deadline_s=60) as edge:
                yield edge, ways
