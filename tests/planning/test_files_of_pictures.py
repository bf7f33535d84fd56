"""`[input.NAME]` of a tiers file: what links and tiers take for a picture's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dnnsplit_onnx.errors import TopologyError
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.profiles import CodeTimes
from dnnsplit_onnx.machines.tiers_file import load_topology, parse_topology
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.choosing import plan, problem_of
from dnnsplit_onnx.planning.costs import cost_table
from dnnsplit_onnx.planning.picture_files import decode_seconds
from dnnsplit_onnx.planning.planners import get_planner
from dnnsplit_onnx.work.analysis import Analysis, measure

MODEL = """
m (uint8[1, 10, 10, 3] picture) => (float[100] y)
<int64[3] axes = {1, 2, 3}, int64[1] s = {100}>
{
    x = Cast <to = 1> (picture)
    a = Exp(x)
    b = ReduceMax <keepdims = 0> (a)
    y = Expand(b, s)
}
"""


@pytest.fixture
def analysis(graph_text) -> Analysis:
    graph: Graph = graph_text(MODEL)
    return measure(graph, bind_shapes(graph))


def tiers(**code: Any) -> Topology:
    """1,000 FLOP/s on the edge, 2,000 above; a link of 1,000 byte/s."""
    table: dict[str, Any] = {
        "tier": [{"name": "edge", "gflops": 1e-6}, {"name": "cloud", "gflops": 2e-6}],
        "link": [{"bandwidth_mbps": 0.008}],
    }
    return parse_topology(table | ({"input": {"picture": code}} if code else {}), "tiers.toml")


def test_the_link_carries_the_file_and_its_reader_decodes_it(analysis) -> None:
    raw = cost_table(analysis, tiers())
    said = tiers(code="jpeg", nbytes=50, decode_ms={"edge": 300, "cloud": 100})
    coded = cost_table(analysis, said)
    assert raw.up_nbytes[0] == 300
    assert coded.up_nbytes.tolist() == [50, *raw.up_nbytes[1:].tolist()]
    decoding = coded.seconds_below - raw.seconds_below
    assert decoding[:, 0].tolist() == [0, 0]
    assert decoding[0, 1:].tolist() == pytest.approx([0.3] * 4)
    assert decoding[1, 1:].tolist() == pytest.approx([0.1] * 4)
    there = plan(analysis, said, cuts=[0])
    assert there.figures.latency_s == pytest.approx(0.05 + 0.1 + raw.seconds_below[1, -1])
    assert [(one.value, one.code, one.raw_nbytes, one.nbytes) for one in there.figures.links[0].coded] == [
        ("picture", "jpeg", 300, 50)
    ]
    assert there.figures.links[0].written == "jpeg"
    assert not [note for note in there.notes if "input_nbytes" in note]


def test_decoding_is_of_a_model_where_nobody_measured_it(analysis) -> None:
    for code, nbytes_moved in (("jpeg", 1000), ("png", 350)):
        said = tiers(code=code, nbytes=10**7).with_tier("cloud", memory_gb_per_s=100.0)
        plain = cost_table(analysis, tiers().with_tier("cloud", memory_gb_per_s=100.0))
        decoding = cost_table(analysis, said).seconds_below - plain.seconds_below
        assert decoding[0, -1] == pytest.approx(nbytes_moved * 1e7 / 10e9)
        assert decoding[1, -1] == pytest.approx(nbytes_moved * 1e7 / 100e9)


def test_a_profile_knows_better_and_the_tiers_file_best(analysis) -> None:
    measured = CodeTimes(value="picture", code="jpeg", nbytes=50, decode_s=0.25)
    other = CodeTimes(value="picture", code="png", nbytes=50, decode_s=9.0)
    said = tiers(code="jpeg", nbytes=10**7, decode_ms={"edge": 300})
    seconds = decode_seconds(analysis, said, [(measured,), (other, measured)])
    assert seconds[:, 1].tolist() == [0.3, 0.25]
    assert decode_seconds(analysis, said, [(), (other,)])[1, 1] == pytest.approx(1000 * 1e7 / 10e9)


@pytest.mark.parametrize("objective", ["latency", "throughput", "cost"])
@pytest.mark.parametrize("nbytes", [10, 200, 5000])
@pytest.mark.parametrize("decode_ms", [0.0, 100.0, 400.0])
def test_the_best_is_the_best_of_all(analysis, objective: Any, nbytes: int, decode_ms: float) -> None:
    said = tiers(code="jpeg", nbytes=nbytes, decode_ms={"edge": 10 * decode_ms, "cloud": decode_ms})
    said = said.with_tier("edge", usd_per_hour=1.0).with_tier("cloud", usd_per_hour=3.0)
    problem = problem_of(analysis, said, objective)
    best = get_planner("exhaustive")(problem)
    found = plan(analysis, said, objective=objective)
    assert found.figures.value(objective) == pytest.approx(problem.figures(best.cuts).value(objective))


def test_pixels_are_as_they_are(analysis) -> None:
    coded, raw = (plan(analysis, one, cuts=[0]) for one in (tiers(code="uint8-image"), tiers()))
    assert coded.figures == raw.figures


@pytest.mark.parametrize(
    ("code", "says", "hint"),
    [
        ({"code": "jpeg"}, "how many bytes a jpeg file of input `picture` has is not known", "--samples"),
        ({"code": "webp"}, "input.picture.code", "known: jpeg, png, uint8-image"),
        ({"code": "jpeg", "nbytes": 0}, "input.picture.nbytes", "above 0"),
        ({"code": "jpeg", "bytes": 9}, "unknown key", "did you mean `nbytes`"),
        ({"code": "jpeg", "nbytes": 9, "decode_ms": {"fog": 1}}, "`fog`, which is no tier", None),
    ],
)
def test_mistakes_are_named(analysis, code: dict[str, Any], says: str, hint: str | None) -> None:
    with pytest.raises(TopologyError) as caught:
        plan(analysis, tiers(**code))
    assert says in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


def test_inputs_that_are_not_there_and_machines_that_share_are_refused(analysis, tmp_path: Path) -> None:
    text = '[[tier]]\nname="edge"\ngflops=1\n[[tier]]\nname="cloud"\ngflops=2\n[[link]]\nbandwidth_mbps=1\n'
    (tmp_path / "t.toml").write_text(f'{text}[input.pictur]\ncode="png"\nnbytes=9\n')
    with pytest.raises(TopologyError, match=r"\[input.NAME\] names `pictur`") as caught:
        plan(analysis, load_topology(tmp_path / "t.toml"))
    assert caught.value.hint == "did you mean `picture`?"
    (tmp_path / "t.toml").write_text(f'{text}[input.picture]\ncode="png"\n[input_nbytes]\npicture=9\n')
    with pytest.raises(TopologyError, match="has a code, and `input_nbytes`"):
        load_topology(tmp_path / "t.toml")
    shares = (
        '[[tier]]\nname="edge"\n[tier.lan]\nbandwidth_mbps=1\n[[tier.machine]]\nname="a"\ngflops=1\n'
        '[[tier.machine]]\nname="b"\ngflops=1\n[input.picture]\ncode="jpeg"\nnbytes=9\n'
    )
    (tmp_path / "t.toml").write_text(shares)
    with pytest.raises(TopologyError, match="several machines of one tier do not share"):
        load_topology(tmp_path / "t.toml")
