"""Cost models: the paper's, the roofline, and a measured profile."""

from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx.errors import ProfileError
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.profiles import Profile, load_profile
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.planning.costs import cost_table
from dnnsplit_onnx.planning.objective import evaluate
from dnnsplit_onnx.work.analysis import Analysis, measure

MODEL = """
g (float[2, 3] x) => (float[2, 4] y)
<float[3, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>
{
   a = MatMul (x, w)
   b = Reshape <allowzero = 0> (a, s)
   y = Relu (b)
}
""".replace("<float[3, 4] w = {", "<int64[2] s = {2, 4}, float[3, 4] w = {")
# MatMul: 2 * 2 * 3 * 4 FLOPs; Reshape: none; Relu: 2 * 4.
FLOPS = [48, 0, 8]
# Bytes read and written: x + w + a, none (a Reshape renames what lies there), b + y.
NBYTES = [24 + 48 + 32, 0, 32 + 32]


@pytest.fixture
def analysis(graph_text) -> Analysis:
    graph = graph_text(MODEL)
    return measure(graph, bind_shapes(graph))


def seconds(analysis: Analysis, **tier) -> list[float]:
    topology = parse_topology({"tier": [{"name": "t", **tier}]}, "test")
    below = cost_table(analysis, topology).seconds_below[0]
    assert below[0] == 0
    return np.diff(below).tolist()


def test_flops_alone(analysis):
    assert analysis.flops.tolist() == FLOPS
    assert seconds(analysis, gflops=1e-9) == FLOPS


def test_a_roofline_takes_the_longer_of_work_and_bytes(analysis):
    assert analysis.moved_nbytes.tolist() == NBYTES
    fast_memory = seconds(analysis, gflops=1e-9, memory_gb_per_s=1.0)
    assert fast_memory == pytest.approx([48, 0, 8])
    slow_memory = seconds(analysis, gflops=1.0, memory_gb_per_s=1e-9, overhead_us=5e6)
    assert slow_memory == pytest.approx([nbytes + 5 for nbytes in NBYTES])


def profile_of(analysis: Analysis, **changes) -> Profile:
    data = {
        "schema_version": 1, "producer": "test", "tier": "t", "provider": "cpu", "threads": 0,
        "model": "m.onnx",
        "model_sha256": analysis.graph.file.sha256(), "order": "file", "nodes": 3, "bindings": {},
        "segments": [
            {"start": 0, "stop": 1, "seconds": 0.5, "spread_s": 0.0, "runs": 9},
            {"start": 1, "stop": 3, "seconds": 0.25, "spread_s": 0.0, "runs": 9},
        ],
        "overhead_s": 0.0, "whole_s": 0.75, "machine": {}, "versions": {},
    }  # fmt: skip
    return Profile.model_validate(data | changes)


@pytest.fixture
def saved(analysis, tmp_path):
    def save(**changes) -> str:
        path = tmp_path / "p.json"
        path.write_text(profile_of(analysis, **changes).to_json())
        return str(path)

    return save


def test_a_profile_shares_a_segment_out_by_work(analysis, saved):
    assert seconds(analysis, profile=saved()) == pytest.approx([0.5, 0.0, 0.25])


def test_a_segment_without_counted_work_is_shared_evenly(analysis, saved):
    segments = [
        {"start": 0, "stop": 1, "seconds": 1.0, "spread_s": 0.0, "runs": 1},
        {"start": 1, "stop": 2, "seconds": 2.0, "spread_s": 0.0, "runs": 1},
        {"start": 2, "stop": 3, "seconds": 3.0, "spread_s": 0.0, "runs": 1},
    ]
    assert seconds(analysis, profile=saved(segments=segments)) == pytest.approx([1.0, 2.0, 3.0])


def test_times_of_nodes_share_out_what_segments_measured(analysis, saved):
    path = saved(node_seconds=[0.4, 0.3, 0.1])
    assert seconds(analysis, profile=path) == pytest.approx([0.5, 0.25 * 0.75, 0.25 * 0.25])


PARTS = [{"position": 1, "below_s": 0.6, "above_s": 0.4, "spread_s": 0.0, "runs": 9}]
MEASURED = {"parts": PARTS, "overhead_s": 0.05, "whole_s": 0.8}


def stage_seconds(analysis: Analysis, path: str, cuts: tuple[int, ...]) -> list[float]:
    topology = parse_topology(
        {
            "tier": [{"name": f"t{at}", "profile": path} for at in range(len(cuts) + 1)],
            "link": [{"bandwidth_mbps": 1.0}] * len(cuts),
        },
        "test",
    )
    figures = evaluate(cuts, cost_table(analysis, topology), topology)
    return [stage.seconds for stage in figures.stages]


def test_two_tiers_take_what_the_parts_of_their_cut_took(analysis, saved):
    path = saved(**MEASURED)
    assert stage_seconds(analysis, path, (1,)) == pytest.approx([0.6, 0.4])
    # Everything on either tier is the whole, and an idle tier takes nothing.
    assert stage_seconds(analysis, path, (3,)) == pytest.approx([0.8, 0])
    assert stage_seconds(analysis, path, (0,)) == pytest.approx([0, 0.8])
    # The segment of a tier between: from the segments, and all of it is the whole again.
    assert stage_seconds(analysis, path, (1, 3)) == pytest.approx([0.6, 0.25, 0])
    assert stage_seconds(analysis, path, (0, 3)) == pytest.approx([0, 0.8, 0])


def test_parts_are_shared_out_like_segments(analysis, saved):
    path = saved(**MEASURED)
    # Below position 2, the segment [1, 3) has no work yet: the Reshape costs nothing.
    assert stage_seconds(analysis, path, (2,)) == pytest.approx([0.6, 0.4])


def test_noise_makes_no_stage_negative(analysis, saved):
    parts = [{"position": 1, "below_s": 0.9, "above_s": 0.9, "spread_s": 0.0, "runs": 9}]
    path = saved(**MEASURED | {"parts": parts})
    for cut in range(4):
        assert min(stage_seconds(analysis, path, (cut,))) >= 0
    assert stage_seconds(analysis, path, (3,)) == pytest.approx([0.8, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_sha256": "0" * 64}, "another model: 000000000000"),
        ({"provider": "cuda"}, "another provider: cuda, not cpu"),
        ({"order": "custom"}, "an order of its own"),
        ({"bindings": {"batch": 2}}, "another bindings"),
    ],
)
def test_a_profile_of_something_else_is_refused(analysis, saved, changes, message):
    with pytest.raises(ProfileError, match=message) as caught:
        seconds(analysis, profile=saved(**changes))
    assert "measure again" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read profile"),
        ("{}", "`schema_version`"),
        (None, "no such profile"),
    ],
)
def test_unreadable_profiles(tmp_path, text, message):
    path = tmp_path / "p.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ProfileError, match=message):
        load_profile(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema version 2"),
        ({"nodes": 4}, "do not cover"),
        ({"node_seconds": [1.0]}, "not one time a node"),
        ({"overhead_s": float("nan")}, "finite"),
        ({"parts": [PARTS[0] | {"position": 2}]}, "parts are not of the cuts"),
        ({"parts": [*PARTS, *PARTS]}, "parts are not of the cuts"),
    ],
)
def test_profiles_that_contradict_themselves(analysis, changes, message):
    with pytest.raises(ValueError, match=message):
        profile_of(analysis, **changes)


def test_a_weight_of_four_bits_is_read_in_an_eighth_of_the_time(graph_text):
    # What a step of a decoder takes: one row, a large weight. FLOPs alone say that four bits are slower.
    whole = """g (float[1, 512] x, float[512, 512] w) => (float[1, 512] y) { y = MatMul (x, w) }"""
    packed = """g (float[1, 512] x, uint8[512, 16, 16] w, float[8192] s) => (float[1, 512] y)
        { y = com.microsoft.MatMulNBits <K = 512, N = 512, bits = 4, block_size = 32> (x, w, s) }"""
    analyses = [measure(graph, bind_shapes(graph)) for graph in map(graph_text, (whole, packed))]
    by_flops, by_memory = (
        [sum(seconds(analysis, gflops=33, **memory)) for analysis in analyses]
        for memory in ({}, {"memory_gb_per_s": 0.1})
    )
    assert by_flops[1] >= by_flops[0]
    sizes = [4 * (512 + 512 + 512 * 512), 4 * (512 + 512) + 512 * 16 * 16 + 4 * 8192]
    assert by_memory == pytest.approx([nbytes / 0.1e9 for nbytes in sizes])
    assert by_memory[0] / by_memory[1] > 6


def test_what_picks_reads_what_it_picks(graph_text):
    graph = graph_text("""g (float[1000, 8] table, int64[3] which, float[10, 8] rows) => (float[2, 8] z)
        <int64[1] a = {0}, int64[1] b = {2}>
        { x = Gather (table, which)
          y = Slice (x, a, b)
          z = Add (y, y) }""")
    moved = measure(graph, bind_shapes(graph)).moved_nbytes.tolist()
    assert moved[:2] == [2 * 3 * 8 * 4 + 3 * 8, 2 * 2 * 8 * 4]
