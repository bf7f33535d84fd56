"""Where uncounted nodes read over a tenth of the weights, no surface gives a verdict or a proof."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx import Link, Tier, Topology, analyse, compare, plan
from dnnsplit_onnx.cli import main
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.planning.sweeping import parse_axis, sweep
from dnnsplit_onnx.reporting.verdict import basis, verdict

SAID = "the work of com.acme::Mystery is not counted, and {}% of the weights are read there"


def written(folder: Path, mystery: int) -> Path:
    """Two products of 64 columns, and between them a node that nobody counts with `mystery` weights."""
    arrays = {
        "a": np.ones((64, 64), np.float32),
        "m": np.ones((mystery,), np.float32),
        "b": np.ones((64, 64), np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "a"], ["y"]),
            helper.make_node("Mystery", ["y", "m"], ["z"], domain="com.acme"),
            helper.make_node("MatMul", ["z", "b"], ["out"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        value_info=[helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 64])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    path = folder / f"m{mystery}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def machines() -> Topology:
    return Topology(
        tiers=[Tier("edge", gflops=0.001), Tier("cloud", gflops=1000)],
        links=[Link(bandwidth_mbps=1, delay_ms=1)],
    )


@pytest.fixture
def unknown(tmp_path: Path) -> Path:
    return written(tmp_path, 2048)  # a fifth of the weights


def test_a_plan_says_that_it_knows_too_little(unknown: Path) -> None:
    made = plan(analyse(unknown), machines())
    assert not made.knows_enough
    first, second = verdict(made)[:2]
    assert first.startswith(f"Too little is known for a verdict: {SAID.format(20)}")
    assert second.startswith("By what is counted, splitting ")
    said = " ".join(basis(made, made.uncounted_ops))
    assert SAID.format(20) in said
    assert "(proven)" not in said
    assert "as far as is known" in str(made)
    back = Plan.from_dict(json.loads(json.dumps(made.to_dict())))
    assert not back.knows_enough
    assert back.unknowns == made.unknowns


def test_a_tenth_of_the_weights_is_the_limit(tmp_path: Path) -> None:
    # 8192 counted weights and m uncounted: a tenth are 910.2.
    below, above = (plan(analyse(written(tmp_path, m)), machines()) for m in (910, 911))
    assert below.knows_enough
    assert below.unknowns == ()
    assert "(proven)" in " ".join(basis(below))
    assert not above.knows_enough
    assert "(proven)" not in " ".join(basis(above))


def test_seconds_that_were_given_need_no_count(unknown: Path) -> None:
    made = plan(analyse(unknown), machines(), costs=np.ones((2, 3)))
    assert made.knows_enough
    assert made.unknowns == ()


def test_sweeps_and_comparisons_say_it_too(unknown: Path) -> None:
    found = sweep(analyse(unknown), machines(), [parse_axis("link.0.bandwidth_mbps=1,10")])
    assert [what[: len(SAID) - 2] for what in found.to_dict()["unknowns"]] == [
        SAID.format(20)[: len(SAID) - 2]
    ]
    rivals = compare(analyse(unknown), machines(), ["exact", "exhaustive"])
    assert rivals.unknowns == found.unknowns == tuple(rivals.to_dict()["unknowns"])


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "MODEL", "--tiers", "TIERS"),
        ("sweep", "MODEL", "--tiers", "TIERS", "--vary", "link.0.bandwidth_mbps=1,10"),
        ("compare", "MODEL", "--tiers", "TIERS", "--planners", "exact,exhaustive"),
    ],
)
def test_every_command_says_it(
    words: tuple[str, ...], unknown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiers = tmp_path / "tiers.toml"
    tiers.write_text(
        '[[tier]]\nname = "edge"\ngflops = 0.001\n[[tier]]\nname = "cloud"\ngflops = 1000\n'
        "[[link]]\nbandwidth_mbps = 1\n"
    )
    named = {"MODEL": str(unknown), "TIERS": str(tiers)}
    assert main([named.get(word, word) for word in words]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Too little is known for a verdict: " + SAID.format(20) in told
    assert "(proven)" not in told


def test_the_report_page_says_it(unknown: Path, tmp_path: Path) -> None:
    tiers = tmp_path / "tiers.toml"
    tiers.write_text(
        '[[tier]]\nname = "edge"\ngflops = 0.001\n[[tier]]\nname = "cloud"\ngflops = 1000\n'
        "[[link]]\nbandwidth_mbps = 1\n"
    )
    slices, page = str(tmp_path / "slices"), tmp_path / "page.html"
    assert main(["split", str(unknown), "--tiers", str(tiers), "--no-verify", "-o", slices]) == 0
    assert main(["report", slices, "-o", str(page)]) == 0
    assert "Too little is known for a verdict" in page.read_text()
    assert "(proven" not in page.read_text()
