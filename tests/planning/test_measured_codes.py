"""Codes whose bytes and seconds were measured, and packed ones, which are planned only then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.profiles import CodeTimes
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.accepting import codes_used
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.planning.coding import code_costs, code_names, coded_at
from dnnsplit_onnx.work.analysis import Analysis, measure
from dnnsplit_onnx.work.codes import LOSSY, base, is_allowed, is_packed, packed
from dnnsplit_onnx.work.cuts import UNKNOWN

# At cut 1 `a` crosses, and at cut 2 `b` and `k`, whole numbers.
MODEL = """
g (float[2, 64] x, int64[2, 64] k) => (float[2, 64] y, int64[2, 64] m)
{
   a = Relu (x)
   b = Neg (a)
   m = Add (k, k)
   y = Abs (b)
}
"""


@pytest.fixture
def analysis(graph_text) -> Analysis:
    graph = graph_text(MODEL)
    return measure(graph, bind_shapes(graph))


def machines(*codes: str) -> Topology:
    tiers = [{"name": "edge", "gflops": 1.0}, {"name": "cloud", "gflops": 9.0, "overhead_us": 3.0}]
    return parse_topology({"tier": tiers, "link": [{"bandwidth_mbps": 1.0, "codes": list(codes)}]}, "test")


def times(value: str, code: str, nbytes: int, packed_nbytes: int | None, seconds: float) -> CodeTimes:
    return CodeTimes(
        value=value,
        code=code,
        nbytes=nbytes,
        packed_nbytes=packed_nbytes,
        encode_s=seconds,
        decode_s=2 * seconds,
        pack_s=3 * seconds,
        unpack_s=4 * seconds,
    )


def test_seconds_are_those_that_were_measured_where_they_were(analysis: Analysis) -> None:
    plain = code_costs(analysis, machines("fp16"))["fp16"]
    edge = [times("a", "fp16", 256, None, 0.5)]
    found = code_costs(analysis, machines("fp16"), [edge, []])["fp16"]
    assert found.encode_s[0, 1] == 0.5
    assert found.decode_s[0, 1] == 1.0
    assert found.encode_s[0, 2] == pytest.approx(plain.encode_s[0, 2])  # of `b` nothing is known
    assert np.array_equal(found.decode_s[1], plain.decode_s[1])  # nor of the cloud
    assert np.array_equal(found.nbytes, plain.nbytes)


def test_what_is_packed_takes_what_was_measured(analysis: Analysis) -> None:
    edge = [
        times("a", "raw", 512, 300, 1e-3),
        times("a", "fp16", 256, 100, 1e-3),
        times("b", "fp16", 256, 120, 1e-3),
        times("k", "raw", 1024, 24, 1e-3),
    ]
    found = code_costs(analysis, machines("packed", "fp16"), [edge, []])
    assert list(found) == ["packed", "fp16", "fp16+packed"]
    size = len(analysis.graph.nodes)
    assert found["packed"].nbytes[1] == 300 + 24
    assert found["fp16+packed"].nbytes[1:3].tolist() == [100 + 24, 120 + 24]  # whole numbers have no fp16
    assert found["packed"].nbytes[2] == UNKNOWN
    assert np.flatnonzero(found["packed"].applies).tolist() == [1]
    assert not found["fp16+packed"].applies[size]
    # Writing and then packing; where the cloud was not measured, packing is as on the edge.
    plain = found["fp16"]
    assert found["fp16+packed"].encode_s[0, 1] == pytest.approx(plain.encode_s[0, 1] + 2 * 3e-3)
    assert found["fp16+packed"].decode_s[1, 1] == pytest.approx(plain.decode_s[1, 1] + 2 * 4e-3)
    assert found["packed"].encode_s[0, 1] == pytest.approx(2 * 3e-3)


def test_nothing_is_planned_to_be_packed_that_nobody_measured(analysis: Analysis) -> None:
    with pytest.raises(InputError, match="nobody has measured it") as caught:
        code_costs(analysis, machines("packed"))
    assert "profile MODEL --tier NAME --codes" in (caught.value.hint or "")


def test_what_is_packed_is_the_slices_own_code(analysis: Analysis) -> None:
    assert coded_at(analysis, 1, "packed") == ()
    assert coded_at(analysis, 1, "fp16+packed") == coded_at(analysis, 1, "fp16")
    assert codes_used((1, 2, 3), ("packed", "fp16+packed", "raw")) == {(2, "fp16")}


def test_sizes_that_the_user_gives_are_kept(analysis: Analysis) -> None:
    given = replace(analysis, input_nbytes={"k": 10})
    found = code_costs(given, machines("packed"), [[times("a", "raw", 512, 300, 0.0)], []])
    assert found["packed"].nbytes[1] == 300 + 10


def test_names() -> None:
    for code in ("raw", *LOSSY):
        assert (base(packed(code)), is_packed(packed(code)), is_packed(code)) == (code, True, False)
    assert code_names(["uint8", "packed", "raw", "fp16"]) == ("packed", "fp16", "uint8")
    assert is_allowed("raw", None)
    assert is_allowed("fp16+packed", ["packed", "fp16"])
    for names in (["fp16"], ["packed"], [], None):
        assert not is_allowed("fp16+packed", names)


def test_a_planner_without_codes_says_so(graph_text):
    graph = graph_text("g (float[1, 64] x) => (float[1, 64] y) { a = Relu (x) y = Neg (a) }")
    tiers = [{"name": "edge", "gflops": 1.0}, {"name": "cloud", "gflops": 9.0}]
    topology = parse_topology({"tier": tiers, "link": [{"bandwidth_mbps": 9.0, "codes": ["uint8"]}]}, "t")
    analysis = measure(graph, bind_shapes(graph))
    notes = {name: " ".join(plan(analysis, topology, planner=name).notes) for name in ("dads", "exact")}
    assert "planner `dads` knows no codes" in notes["dads"]
    assert "codes considered: raw, uint8" in notes["exact"]
