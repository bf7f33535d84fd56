"""`inspect`: work, candidates, unknown sizes."""

from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import pytest

from tests.cli.conftest import Run

FLOAT = 4


@pytest.mark.parametrize(
    ("cut_size", "elements"),
    [
        ("live", [150528, 100352, 2048, 1000]),
        ("layer-input", [150528, 100352, 50176, 25088, 2048, 1000]),
    ],
)
def test_resnet50_has_the_published_candidates(run: Run, cut_size: str, elements: list[int]) -> None:
    found = run("inspect", "zoo:light_resnet50", "--order", "file", "--cut-size", cut_size, "--json").json
    by_position = {cut["position"]: cut for cut in found["cuts"]}
    assert [by_position[at]["nbytes"] for at in found["candidates"]] == [n * FLOAT for n in elements]
    assert all(by_position[at]["candidate"] for at in found["candidates"])


def test_json_has_the_keys_that_scripts_rely_on(run: Run, tiny: Path) -> None:
    found = run("inspect", tiny, "--bind", "batch=1", "--json").json
    assert found["model"] == str(tiny)
    node = {"name", "op_type", "macs", "flops", "output_nbytes", "weight_nbytes"}
    assert all(node <= entry.keys() for entry in found["nodes"])
    assert found["total"]["macs"] == sum(entry["macs"] for entry in found["nodes"])
    assert found["total"]["flops"] == sum(entry["flops"] for entry in found["nodes"])
    assert found["total"]["weight_nbytes"] == 310_824
    assert found["uncounted_ops"] == {}
    cut = {"position", "nbytes", "values", "flops_below", "candidate"}
    assert [entry["position"] for entry in found["cuts"]] == list(range(len(found["nodes"]) + 1))
    assert all(cut <= entry.keys() for entry in found["cuts"])
    assert found["cuts"][0]["values"] == ["input"]
    assert found["cuts"][-1]["values"] == []
    assert found["cuts"][-1]["flops_below"] == found["total"]["flops"]


def test_macs_of_resnet50(run: Run) -> None:
    found = run("inspect", "zoo:light_resnet50", "--json").json
    layers = sum(node["macs"] for node in found["nodes"] if node["op_type"] in ("Conv", "Gemm"))
    assert layers == 4_089_184_256


def test_unbound_dimensions_get_sizes_that_are_told(run: Run, tiny: Path) -> None:
    ended = run("inspect", tiny)
    assert ended.code == 0
    assert "assumed batch=1; pass --bind batch=N" in ended.err
    found = run("inspect", tiny, "--json").json
    assert found["assumed"] == found["bindings"] == {"batch": 1}
    assert found["unbound"] == []
    assert found["candidates"] == run("inspect", tiny, "--bind", "batch=1", "--json").json["candidates"]


def test_a_bound_batch_scales_what_crosses(run: Run, tiny: Path) -> None:
    one = run("inspect", tiny, "--bind", "batch=1", "--json").json
    two = run("inspect", tiny, "--bind", "batch=2", "--json").json
    assert [cut["nbytes"] * 2 for cut in one["cuts"]] == [cut["nbytes"] for cut in two["cuts"]]


@pytest.mark.parametrize(
    ("binds", "message"),
    [
        (["batch"], "cannot read `--bind batch`"),
        (["batch=x"], "cannot read `--bind batch=x`"),
        (["=1"], "cannot read `--bind =1`"),
        (["batch=0"], "cannot bind dimension `batch` to 0"),
        (["batch=1", "batch=2"], "`--bind` gives `batch` both 1 and 2"),
        (["height=1"], "model `tiny.onnx` has no dimension `height`"),
    ],
)
def test_bindings_that_are_none(run: Run, tiny: Path, binds: list[str], message: str) -> None:
    ended = run("inspect", tiny, *(word for bind in binds for word in ("--bind", bind)))
    assert ended.code == 2
    assert ended.err.startswith(f"error: {message}")


def test_a_file_that_is_not_onnx(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    path.write_text("not a model")
    ended = run("inspect", path, "--json")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: ")
    assert "\nhint: " in ended.err


def test_a_truncated_file(run: Run, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(tiny.read_bytes()[:5000])
    ended = run("inspect", path)
    assert ended.code == 2
    assert ended.err.startswith("error: ")


def test_the_zoo_names_its_nearest(run: Run) -> None:
    ended = run("inspect", "zoo:light_resnet")
    assert ended.code == 2
    assert ended.err == "error: the zoo has no model `light_resnet`\nhint: did you mean `light_resnet50`?\n"


def test_the_graph_is_written_for_other_programs(run: Run, tiny: Path, tmp_path: Path) -> None:
    files = [tmp_path / "tiny.json", tmp_path / "tiny.graphml"]
    for file in files:
        found = run("inspect", tiny, "--bind", "batch=1", "--graph", file, "--json").json
        assert run("inspect", tiny, "--graph", file).code == 2  # it is there already
    by_name = {node["name"]: node for node in json.loads(files[0].read_text())["nodes"]}
    drawn = {node["name"]: node for node in nx.read_graphml(files[1]).nodes.values()}
    for entry in found["nodes"]:
        for read in (by_name, drawn):
            assert {key: read[entry["name"]][key] for key in ("op_type", "macs", "flops")} == {
                key: entry[key] for key in ("op_type", "macs", "flops")
            }


def test_a_graph_of_another_kind_is_refused_early(run: Run, tmp_path: Path) -> None:
    ended = run("inspect", tmp_path / "no.onnx", "--graph", tmp_path / "g.dot")
    assert ended.code == 2
    assert "error: no graph is written as `.dot`" in ended.err
    assert "hint: name it g.graphml, or g.json" in ended.err
