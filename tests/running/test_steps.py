"""Generation over slices: the same tokens as the whole model, caches never leaving their tier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx import load_topology, plan, slice_model, verify
from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.models import write_model
from dnnsplit_onnx.running.steps import Steps
from dnnsplit_onnx.slicing.manifest import Manifest, load_manifest
from dnnsplit_onnx.work.cuts import parted_states

TIERS = """
[[tier]]
name = "edge"
gflops = 1
[[tier]]
name = "near"
gflops = 10
[[tier]]
name = "cloud"
gflops = 100
[[link]]
bandwidth_mbps = 10
[[link]]
bandwidth_mbps = 10
"""
PROMPT = np.array([[5, 17, 3, 42], [9, 9, 60, 1]], dtype=np.int64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("decoder")
    (place / "tiers.toml").write_text(TIERS)
    write_model("tiny_decoder", place / "decoder.onnx")
    graph = load_graph(place / "decoder.onnx")
    whole = np.flatnonzero(~parted_states(graph))
    cuts = [int(whole[len(whole) // 3]), int(whole[2 * len(whole) // 3])]
    made = plan(
        graph,
        load_topology(place / "tiers.toml"),
        cuts=cuts,
        bindings={"batch": 1, "sequence": 1, "past_sequence": 16},
    )
    assert min(stage.stop - stage.start for stage in made.figures.stages) > 10
    slice_model(graph, made, place / "slices")
    return place


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return load_manifest(folder / "slices")


def generate(steps: Steps, count: int = 24) -> np.ndarray:
    """Greedy decoding: each token the likeliest."""
    tokens, new = [PROMPT], PROMPT
    for _ in range(count):
        logits = steps({"input_ids": new})["logits"]
        new = logits[:, -1:].argmax(axis=-1)
        tokens.append(new)
    return np.concatenate(tokens, axis=1)


def test_the_slices_generate_what_the_whole_model_does(folder: Path, manifest: Manifest) -> None:
    whole = generate(Steps.of_whole(folder / "decoder.onnx", manifest))
    assert whole.shape == (2, 28)
    assert len(np.unique(whole[:, 4:])) > 3  # it says something
    steps = Steps.open(folder / "slices")
    np.testing.assert_array_equal(generate(steps), whole)
    # With what came before in memory, the same prompt goes on otherwise; without, it does not.
    assert (generate(steps) != whole).any()
    steps.forget()
    np.testing.assert_array_equal(generate(steps), whole)


def test_the_memory_is_what_the_whole_text_would_give(folder: Path, manifest: Manifest) -> None:
    steps = Steps.open(folder / "slices")
    steps({"input_ids": PROMPT[:, :3]})
    bit_by_bit = steps({"input_ids": PROMPT[:, 3:]})["logits"]
    steps.forget()
    at_once = steps({"input_ids": PROMPT})["logits"]
    np.testing.assert_allclose(bit_by_bit[:, -1], at_once[:, -1], atol=1e-4)


def test_each_tier_reads_and_makes_its_own_caches_only(manifest: Manifest) -> None:
    owners: dict[str, str] = {}
    kept = {name for state in manifest.states for name in (state.input, state.output)}
    for record in manifest.slices:
        ports = {port.name for port in (*record.inputs, *record.outputs)}
        for state in manifest.states:
            assert (state.input in ports) == (state.output in ports)
            if state.input in ports:
                assert owners.setdefault(state.input, record.tier) == record.tier
        assert kept.isdisjoint(record.forward)
    assert len(owners) == len(manifest.states) == 6
    assert len(set(owners.values())) == 3
    for link in manifest.plan["links"]:
        assert kept.isdisjoint(link["values"])


def test_one_step_is_proven_bit_for_bit(folder: Path) -> None:
    assert verify(folder / "slices").bitwise


def test_a_first_step_may_start_from_given_states(folder: Path, manifest: Manifest) -> None:
    steps = Steps.open(folder / "slices")
    caches = {state.input: np.ones((2, 4, 3, 16), np.float32) for state in manifest.states}
    given = steps({"input_ids": PROMPT}, caches)["logits"]
    steps.forget()
    assert not np.array_equal(steps({"input_ids": PROMPT})["logits"], given)


def test_what_is_missing_or_unknown_is_named(folder: Path) -> None:
    steps = Steps.open(folder / "slices")
    with pytest.raises(InputError, match="`input_ids` is missing"):
        steps({})
    with pytest.raises(InputError, match=r"unknown input `past_key_values\.0\.key`"):
        steps({"input_ids": PROMPT, "past_key_values.0.key": np.zeros((2, 4, 0, 16), np.float32)})
