"""`profile`: measured files that `plan` reads, and links."""

from __future__ import annotations

import csv
import io
import json
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.measuring.profiling.link import LinkPeer
from dnnsplit_onnx.models import write_model
from tests.cli.conftest import Run

MEASURED = """
[[tier]]
name = "edge"
profile = "edge.json"

[[tier]]
name = "cloud"
gflops = 1000

[[link]]
bandwidth_mbps = 1
"""


BIND = ("--bind", "batch=1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    write_model("tiny_residual", path)
    return path


@pytest.mark.parametrize("per_node", [False, True])
def test_a_profile_takes_the_place_of_gflops(run: Run, model: Path, tmp_path: Path, per_node: bool) -> None:
    file = tmp_path / "edge.json"
    flags = ["--per-node"] if per_node else []
    ended = run("profile", model, "--tier", "edge", "-o", file, "--runs", 3, "--json", *flags, *BIND)
    assert ended.code == 0, ended.err
    assert ended.json == json.loads(file.read_text())
    segments = ended.json["segments"]
    assert [s["stop"] for s in segments[:-1]] == [s["start"] for s in segments[1:]]
    assert (ended.json["node_seconds"] is not None) == per_node

    tiers = tmp_path / "tiers.toml"
    tiers.write_text(MEASURED)
    planned = run("plan", model, "--tiers", tiers, "--json", *BIND)
    assert planned.code == 0, planned.err
    edge = planned.json["single_tier"][0]
    assert edge["latency_s"] == pytest.approx(ended.json["whole_s"])


def test_a_profile_is_not_overwritten(run: Run, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "edge.json"
    file.write_text("mine")
    ended = run("profile", model, "--tier", "edge", "-o", file, "--runs", 2)
    assert (ended.code, file.read_text()) == (2, "mine")
    assert "--force" in ended.err


def test_a_profile_of_another_model_is_refused(run: Run, model: Path, tmp_path: Path) -> None:
    assert run("profile", model, "--tier", "edge", "-o", tmp_path / "edge.json", "--runs", 2, *BIND).code == 0
    other, tiers = tmp_path / "other.onnx", tmp_path / "tiers.toml"
    write_model("tiny_squeeze_excite", other)
    tiers.write_text(MEASURED)
    ended = run("plan", other, "--tiers", tiers, *BIND)
    assert ended.code == 2
    assert "measured with another model" in ended.err
    assert "hint: measure again" in ended.err


def test_a_profile_keeps_the_sizes_that_it_assumed(run: Run, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "edge.json"
    ended = run("profile", model, "--tier", "edge", "-o", file)
    assert ended.code == 0
    assert "assumed batch=1" in ended.err
    found = json.loads(file.read_text())
    assert found["assumed"] == found["bindings"] == {"batch": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to measure"),
        (["m.onnx", "--listen", "1"], "more than one thing"),
        (["m.onnx"], "`--tier NAME`"),
        (["m.onnx", "--tier", "edge"], "`-o FILE`"),
        (["--link", "nowhere"], "cannot read `--link nowhere`"),
        (["--link", "127.0.0.1:99999"], "cannot read `--link"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], message: str) -> None:
    ended = run("profile", *arguments)
    assert ended.code == 2
    assert message in ended.err


def test_a_tier_that_is_not_in_the_file(run: Run, model: Path, tiers: Path, tmp_path: Path) -> None:
    ended = run("profile", model, "--tier", "fog", "--tiers", tiers, "-o", tmp_path / "p.json")
    assert ended.code == 2
    assert "no tier `fog`" in ended.err


def test_a_link_is_printed_as_the_tiers_file_wants_it(run: Run) -> None:
    peer = LinkPeer("127.0.0.1", 0)
    thread = threading.Thread(target=peer.serve)
    thread.start()
    try:
        found = run("profile", "--link", f"127.0.0.1:{peer.port}", "--json")
        row = run("profile", "--link", f"127.0.0.1:{peer.port}", "--format", "csv")
    finally:
        peer.close()
        thread.join(10)
    assert not thread.is_alive()
    assert found.code == 0
    assert found.json["bandwidth_mbps"] > 100
    assert 0 < found.json["delay_ms"] < 100
    (measured,) = csv.DictReader(io.StringIO(row.out))
    assert measured.keys() == found.json.keys()
    assert float(measured["bandwidth_mbps"]) > 100


def test_a_link_without_a_peer(run: Run) -> None:
    with LinkPeerOnce() as port:
        ended = run("profile", "--link", f"127.0.0.1:{port}")
    assert ended.code == 2
    assert "--listen" in ended.err


class LinkPeerOnce:
    """A port on which nothing listens."""

    def __enter__(self) -> int:
        peer = LinkPeer("127.0.0.1", 0)
        port = peer.port
        peer.close()
        return port

    def __exit__(self, *_: object) -> None:
        """There is nothing left to close."""


def test_times_of_nodes_add_up(tmp_path: Path) -> None:
    from dnnsplit_onnx.graph.graph import load_graph
    from dnnsplit_onnx.graph.shapes import bind_shapes
    from dnnsplit_onnx.measuring.profiling.nodes import share, trace_nodes
    from dnnsplit_onnx.work.analysis import measure

    path = tmp_path / "m.onnx"
    write_model("tiny_squeeze_excite", path)
    graph = load_graph(path)
    analysis = measure(graph, bind_shapes(graph))
    times = trace_nodes(analysis, runs=3, warmup=1).seconds
    assert len(times) == len(graph.nodes)
    assert sum(times) > 0
    # Fused away: a convolution that lives on as its activation, and what maps to nothing.
    optimized = graph.proto.graph.__class__()
    seconds = {}
    for at, node in enumerate(graph.nodes):
        if at % 2:
            optimized.node.add(name=f"{node.outputs[0]}_nchwc", output=["token"])
            seconds[f"{node.outputs[0]}_nchwc"] = 1.0
    optimized.node.add(name="ReorderOutput", output=["token2"])
    seconds["ReorderOutput"] = 0.5
    shared = share(analysis, optimized, seconds)
    assert np.isclose(sum(shared), sum(seconds.values()))


def test_a_predictor_is_fitted_on_models_and_plans_any_other(run: Run, model: Path, tmp_path: Path) -> None:
    file, tiers = tmp_path / "edge.json", tmp_path / "tiers.toml"
    names = ("tiny_residual", "tiny_transformer", "tiny_decoder")
    named = [part for name in names for part in ("--predict", f"zoo:{name}")]
    ended = run("profile", *named, "--tier", "edge", "-o", file, "--runs", 2)
    assert ended.code == 0, ended.err
    assert "On models left out: off by" in ended.out
    assert [trial["model"] for trial in json.loads(file.read_text())["trials"]] == [
        f"{name}.onnx" for name in names
    ]
    again = run("profile", *named, "--tier", "edge", "-o", file, "--runs", 2, "--force", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(again.out)))
    trials = json.loads(file.read_text())["trials"]
    assert [row["model"] for row in rows] == [trial["model"] for trial in trials]
    for row, trial in zip(rows, trials, strict=True):
        assert float(row["error"]) == trial["predicted_s"] / trial["measured_s"] - 1
    tiers.write_text(MEASURED)
    other = tmp_path / "other.onnx"
    write_model("tiny_squeeze_excite", other)
    planned = run("plan", other, "--tiers", tiers, "--json", *BIND)
    assert planned.code == 0, planned.err
    assert planned.json["cost_models"] == ["predictor", "gflops"]
    assert run("profile", *named[:2], "--tier", "edge", "-o", tmp_path / "x").code == 2
    assert run("profile", model, *named, "--tier", "edge", "-o", tmp_path / "x").code == 2


def test_codes_are_measured_and_planned(run: Run, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("zstandard", reason="needs zstandard: pip install 'dnnsplit-onnx[packed]'")
    file, samples = tmp_path / "edge.json", tmp_path / "samples.npz"
    (reads,) = onnx.load(model).graph.input
    shape = [dim.dim_value or 1 for dim in reads.type.tensor_type.shape.dim]
    np.savez(samples, **{reads.name: np.random.default_rng(0).random((3, *shape), np.float32)})
    measured = ("--runs", 2, "--codes", "--samples", samples, "--json", *BIND)
    ended = run("profile", model, "--tier", "edge", "-o", file, *measured)
    assert ended.code == 0, ended.err
    codes = ended.json["codes"]
    assert {one["code"] for one in codes} >= {"raw", "fp16", "uint8"}
    for one in codes:
        assert 0 < one["packed_nbytes"] <= one["nbytes"]
        assert one["pack_s"] > 0 < one["unpack_s"]
        assert (one["encode_s"] > 0) == (one["code"] != "raw") == (one["decode_s"] > 0)
        # Half a unit of fp16; half of 255 steps over a range of twice the largest element at most.
        assert 0 <= one["error"] <= {"raw": 0, "fp16": 2**-11}.get(one["code"], 1 / 255 + 1e-6)
    assert all(any(one["error"] > 0 for one in codes if one["code"] == code) for code in ("fp16", "uint8"))

    tiers, out = tmp_path / "tiers.toml", tmp_path / "out"
    tiers.write_text(MEASURED)
    conditions = ("--tiers", tiers, "--codes", "fp16,packed", "--at", "0", "--json", *BIND)
    planned = run("plan", model, *conditions)
    assert planned.code == 0, planned.err
    (link,) = planned.json["links"]
    packed = {one["value"]: one["packed_nbytes"] for one in codes if one["code"] == "fp16"}
    assert link["code"] == "fp16+packed"
    assert link["nbytes"] == sum(packed[coded["value"]] for coded in link["coded"])
    # Packing is the wire's: the slices have fp16 alone, and are proven with it.
    ended = run("split", model, *conditions, "-o", out)
    assert ended.code == 0, ended.err
    slices = json.loads((out / "manifest.json").read_text())["slices"]
    assert {port["code"] for one in slices for port in one["outputs"] if port.get("code")} == {"fp16"}


def test_samples_without_codes_are_a_mistake(run: Run, model: Path, tmp_path: Path) -> None:
    ended = run("profile", model, "--tier", "edge", "-o", tmp_path / "p.json", "--samples", "x.npz")
    assert (ended.code, "add --codes" in ended.err) == (2, True)
