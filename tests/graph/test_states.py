"""States: what one run hands to the next, and which cuts that leaves."""

from __future__ import annotations

import re
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.errors import CutError, InputError
from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.graph.states import Signature, State, likely_states, named_states, parse_states
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.models import write_model
from dnnsplit_onnx.planning.choosing import plan, problem_of
from dnnsplit_onnx.planning.planners import get_planner
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.analysis import measure
from dnnsplit_onnx.work.cuts import UNKNOWN, check_states, live_values, parted_states
from tests.dags import parts_a_state, random_workload, with_states

SIZES = {"batch": 1, "sequence": 4, "past_sequence": 12}
TIERS = parse_topology(
    {
        "tier": [{"name": "edge", "gflops": 0.1, "memory_gb": 0.001}, {"name": "cloud", "gflops": 10}],
        "link": [{"bandwidth_mbps": 10}],
    },
    "test",
)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder") / "decoder.onnx"
    write_model("tiny_decoder", path)
    return path


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("past_key_values.3.key", "present.3.key"),
        ("past_key_values.3.decoder.value", "present.3.decoder.value"),
        ("past_key_values.3.key", "present_key_values.3.key"),
        ("past_key_self_3", "present_key_self_3"),
        ("past_3", "present_3"),
        ("past.3.key", "present.3.key"),
        ("past_conv.0", "present_conv.0"),
    ],
)
def test_exporters_names_are_known(given: str, made: str) -> None:
    assert named_states({"input_ids": None, given: None}, {"logits": None, made: None}) == (
        State(given, made),
    )


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("cached_len_0", "new_cached_len_0"),  # icefall's transducers
        ("embed_states", "new_embed_states"),
        ("att_cache", "r_att_cache"),  # WeNet
        ("cache_last_channel", "cache_last_channel_next"),  # NeMo
        ("state", "stateN"),  # Silero
        ("h", "hn"),
        ("c0", "cN"),
        ("h0", "hn"),
        ("h_0", "h_n"),
        ("hidden_in", "hidden_out"),
        ("lstm_c_in", "lstm_c_out"),
        ("stateIn", "stateOut"),
        ("input_state", "output_state"),
        ("in_n_layer_self_k_cache", "out_n_layer_self_k_cache"),  # sherpa's Whisper
        ("prev_state", "next_state"),
        ("memory", "new_memory"),
        ("state.3", "state.3_out"),
        ("conv_buf", "out_conv_buf"),
    ],
)
def test_names_that_are_renewed_and_speak_of_a_memory(given: str, made: str) -> None:
    state: Signature = (1, (2, "batch", 64))
    inputs: dict[str, Signature | None] = {"x": (1, (1, 576)), given: state}
    outputs: dict[str, Signature | None] = {"y": (1, (1, 1)), made: (1, (2, "N", 64))}
    assert named_states(inputs, outputs) == (State(given, made),)
    # What the next run cannot read is none: another rank, another size, another type.
    for other in ((1, (2, 64)), (1, (3, "N", 64)), (7, (2, "N", 64))):
        assert named_states(inputs, {"y": (1, (1, 1)), made: other}) == ()


@pytest.mark.parametrize(
    ("given", "made"),
    [("image_in", "image_out"), ("input", "output"), ("x", "new_x"), ("r1i", "r1o"), ("noisy", "clean")],
)
def test_an_image_is_no_memory(given: str, made: str) -> None:
    kind: Signature = (1, (1, 3, 64, 64))
    assert named_states({given: kind, "z": None}, {made: kind, "w": None}) == ()


def test_a_model_of_nothing_but_memories_reads_something() -> None:
    kind: Signature = (1, (1, 8))
    assert named_states({"state": kind}, {"state_out": kind, "y": None}) == ()
    assert named_states({"state": kind, "x": kind}, {"state_out": kind}) == ()


@pytest.mark.parametrize(
    ("pair", "name"),
    [
        (("past_key_values.0.decoder.key", "present.0.decoder.key"), "past_key_values.0.encoder.key"),
        (("past_key_self_0", "present_key_self_0"), "past_key_cross_0"),
        (("past_key_values.0.key", "present.0.key"), "encoder_hidden_states"),
        (("past_key_values.0.key", "present.0.key"), "encoder_attention_mask"),
        (("in_n_layer_self_k_cache", "out_n_layer_self_k_cache"), "n_layer_cross_k"),
    ],
)
def test_what_a_decoder_attends_to_stays_for_a_sequence(pair: tuple[str, str], name: str) -> None:
    kept, made = pair
    states = named_states({"ids": None, name: None, kept: None}, {"logits": None, made: None})
    assert states == (State(name, None), State(kept, made))
    # With an output it is renewed as any other; without other states it is an input.
    if name.startswith("past"):
        renewed = named_states(
            {name: None, "x": None}, {name.replace("past_key_values", "present"): None, "y": None}
        )
        assert all(state.output for state in renewed)
    assert named_states({"ids": None, name: None}, {"logits": None}) == ()


@pytest.mark.parametrize(
    ("pair", "name"),
    [
        (("input_states_1", "output_states_1"), "encoder_outputs"),  # one frame at a time
        (("input_states_1", "output_states_1"), "encoder_hidden_states"),
        (("past_key_values.0.key", "present.0.key"), "past_sequence_length"),
        (("past_key_values.0.key", "present.0.key"), "attention_mask"),
        (("state", "stateN"), "cross_entropy_weight"),
    ],
)
def test_what_each_run_brings_does_not_stay(pair: tuple[str, str], name: str) -> None:
    kept, made = pair
    inputs, outputs = {"x": None, name: None, kept: None}, {"y": None, made: None}
    assert named_states(inputs, outputs) == (State(kept, made),)


def test_what_may_be_a_state_is_told() -> None:
    kind, image = (1, (1, 16, "H", "W")), (1, (1, 3, "H", "W"))
    inputs: dict[str, Signature | None] = {"src": image, "r1i": kind, "r2i": kind}
    outputs: dict[str, Signature | None] = {"fgr": image, "r1o": kind, "r2o": kind}
    told = likely_states(inputs, outputs, ())
    assert {State("r1i", "r1o"), State("r2i", "r2o")} <= set(told) or told == ()
    lone: dict[str, Signature | None] = {"audio": (1, (1, 512)), "a": (1, (2, 1, 128))}
    made: dict[str, Signature | None] = {"p": (1, (1, 1)), "b": (1, (2, 1, 128))}
    assert likely_states(lone, made, ()) == (State("a", "b"),)
    assert likely_states(lone, made, (State("a", "b"),)) == ()
    assert likely_states({"image": image}, {"image_out": image}, ()) == ()


def test_a_cache_that_nothing_renews_is_told() -> None:
    cache: Signature = (1, (1, 4, "past", 16))
    inputs: dict[str, Signature | None] = {"ids": (7, (1, 1)), "past.0.key": cache, "past.1.key": cache}
    inputs["past.length"] = (7, (1,))
    outputs: dict[str, Signature | None] = {"logits": None, "present.0.key": cache}
    known = named_states(inputs, outputs)
    assert known == (State("past.0.key", "present.0.key"),)
    assert likely_states(inputs, outputs, known) == (State("past.1.key", None),)
    assert all(state.output for state in likely_states(inputs, outputs, ()))


def test_patterns_name_many() -> None:
    inputs, outputs = ["x", "k_0", "k_1", "v_0"], ["y", "new k_0", "new k_1", "v.0.out"]
    assert parse_states(["k_*=new k_*", "v_*=v.*.out"], inputs, outputs) == (
        State("k_0", "new k_0"),
        State("k_1", "new k_1"),
        State("v_0", "v.0.out"),
    )
    assert parse_states(["k_*="], inputs, outputs) == (State("k_0", None), State("k_1", None))
    for text, said in [
        ("k_*=new k_0", "not as many"),
        ("q_*=new q_*", "names no input"),
        ("v_*=new v_*", "no output `new v_0`"),
    ]:
        with pytest.raises(InputError, match=said):
            parse_states([text], inputs, outputs)


@pytest.mark.parametrize(
    ("given", "made"),
    [("past_3", "present_2"), ("pasta_3", "presenta_3"), ("repast_0", "represent_0"), ("x", "present")],
)
def test_other_names_are_not(given: str, made: str) -> None:
    assert named_states({given: None, "y": None}, {made: None, "z": None}) == ()


def test_states_that_a_user_names() -> None:
    inputs, outputs = ["x", "h", "c=1"], ["y", "hn", "cn"]
    assert parse_states(["h=hn", "c=1=cn"], inputs, outputs) == (State("h", "hn"), State("c=1", "cn"))
    assert parse_states(["none"], inputs, outputs) == ()
    assert parse_states(["c=1=", "h=hn"], inputs, outputs) == (State("c=1", None), State("h", "hn"))
    for wrong, what in [
        ("h", "cannot read"),
        ("g=hn", "no input `g`"),
        ("h=gn", "no output `gn`"),
    ]:
        with pytest.raises(InputError, match=what):
            parse_states([wrong], inputs, outputs)
    with pytest.raises(InputError, match="another state"):
        parse_states(["h=hn", "x=hn"], inputs, outputs)


def test_a_decoders_caches_cross_no_cut(decoder: Path) -> None:
    graph = load_graph(decoder)
    kept = {state.input for state in graph.states}
    assert len(kept) == 6
    assert graph.fresh_inputs == ("input_ids",)
    assert graph.results == ("logits",)
    for position in range(len(graph.nodes) + 1):
        assert kept.isdisjoint(live_values(graph, position))
    # Where they are plain inputs, every cut below a layer sends what its layer needs.
    plain = load_graph(decoder, ["none"])
    assert kept <= set(live_values(plain, 0))
    sizes = [measure(g, bind_shapes(g, SIZES)).cut_nbytes() for g in (graph, plain)]
    caches = 6 * 4 * 12 * 16 * 4
    assert sizes[1][0] - sizes[0][0] == caches


def test_parted_states_against_the_definition() -> None:
    seen = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        analysis = with_states(rng, random_workload(rng, 7))
        parted = parted_states(analysis.graph)
        for position in range(8):
            assert parted[position] == parts_a_state(analysis, frozenset(range(position)))
        seen += parted.any()
        assert (analysis.cut_nbytes()[parted] == UNKNOWN).all()
        assert not parted[[0, -1]].any()
    assert seen > 10


def test_a_plan_never_parts_a_state_and_is_the_best_that_does_not() -> None:
    topology = parse_topology(
        {
            "tier": [
                {"name": "a", "gflops": 1e-9},
                {"name": "b", "gflops": 3e-9},
                {"name": "c", "gflops": 1e-8},
            ],
            "link": [{"bandwidth_mbps": 1e-5}, {"bandwidth_mbps": 3e-5}],
            # Outputs that return may ask for another order of the nodes.
            "limits": {"return_output": False},
        },
        "test",
    )
    for seed in range(40):
        rng = np.random.default_rng([seed, 5])
        analysis = with_states(rng, random_workload(rng, 6))
        problem = problem_of(analysis, topology)
        parted = parted_states(analysis.graph)
        chosen = problem.figures(get_planner("exact")(problem).cuts)
        assert not parted[list(chosen.cuts)].any()
        least = min(
            problem.figures(cuts).latency_s
            for cuts in combinations_with_replacement(range(7), 2)
            if not parted[list(cuts)].any()
        )
        assert chosen.latency_s == least


def test_memory_holds_the_states_of_the_layers_it_has(decoder: Path) -> None:
    graph = load_graph(decoder)
    analysis = measure(graph, bind_shapes(graph, SIZES))
    first = 1 + max(at for at, node in enumerate(graph.nodes) if "layer0" in node.name)
    second = 1 + max(at for at, node in enumerate(graph.nodes) if "layer1" in node.name)
    memory = analysis.memory
    kept = set(memory.weight_ids[memory.weight_ends[first] : memory.weight_ends[second]].tolist())
    weights = {name for node in graph.nodes[first:second] for name in node.weights}
    caches = 2 * 4 * 12 * 16 * 4
    expected = sum(analysis.types.need_nbytes(name) for name in weights) + caches
    assert memory.weight_nbytes[sorted(kept)].sum() == expected
    # Every stage has its own layers' caches only, and all of them have all.
    assert memory.nbytes(0, len(graph.nodes)) > 3 * caches
    assert memory.nbytes(first, second) < memory.nbytes(0, second)


def test_cutting_into_a_state_says_where_else_to_cut(decoder: Path) -> None:
    analysis = analyse(decoder, SIZES)
    graph = analysis.graph
    inside = int(np.flatnonzero(parted_states(graph))[3])
    with pytest.raises(CutError, match=r"parts state `past_key_values\.0\.key`") as caught:
        plan(analysis, TIERS, cuts=[inside])
    named = re.findall(r"nearest cuts are (\d+) and (\d+)", caught.value.hint or "")[0]
    check_states(graph, [int(position) for position in named])


def test_reordering_keeps_the_states(decoder: Path) -> None:
    graph: Graph = load_graph(decoder)
    assert graph.reordered(range(len(graph.nodes))).states == graph.states


def test_outputs_without_names_that_tell_are_paired_by_position() -> None:
    cache: Signature = (1, ("batch", 4, "past", 16))
    grown: Signature = (1, ("batch", 4, "past + 1", 16))
    inputs: dict[str, Signature | None] = {"input_ids": (7, ("batch", 1))}
    inputs |= {f"past_key_values_{part}_cache_{at}": cache for part in ("key", "value") for at in range(2)}
    outputs: dict[str, Signature | None] = {"linear_14": (1, ("batch", 1, 64))}
    outputs |= {f"cat_{at}": grown for at in (3, 7, 4, 8)}
    assert named_states(inputs, outputs) == ()
    told = likely_states(inputs, outputs, ())
    assert [state.output for state in told] == ["cat_3", "cat_7", "cat_4", "cat_8"]
    assert [state.input for state in told] == list(inputs)[1:]
    other = outputs | {"cat_8": (1, ("batch", 5, "past + 1", 16))}
    assert likely_states(inputs, other, ()) == ()
