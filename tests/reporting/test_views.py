"""Reports fit the terminal, wide or narrow, and say everything without colour."""

from __future__ import annotations

import io
from pathlib import Path

import onnx
import pytest
from rich.cells import cell_len
from rich.console import Console

from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.tiers_file import load_topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.reporting.bars import waterfall
from dnnsplit_onnx.reporting.console import Glyphs, stdout_console
from dnnsplit_onnx.reporting.inspect_view import print_inspection
from dnnsplit_onnx.reporting.plan_view import print_plan
from dnnsplit_onnx.reporting.progress import progress
from dnnsplit_onnx.reporting.proof_view import cutting_costs, print_bench, print_verification
from dnnsplit_onnx.work.analysis import measure
from dnnsplit_onnx.work.inspection import Inspection
from tests.conftest import light
from tests.reporting.plans_made import made
from tests.running.stateful import Decoder

WIDTHS = [60, 80, 140]
EXAMPLE = Path(__file__).parents[2] / "examples" / "tiers.toml"


def console(width: int) -> Console:
    return Console(width=width, file=io.StringIO(), highlight=False, markup=False, emoji=False)


def printed(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    text = to.file.getvalue()
    assert all(cell_len(line) <= to.width for line in text.splitlines())
    assert "\x1b" not in text
    return text


@pytest.fixture(scope="module")
def graph() -> Graph:
    return load_graph(light("densenet121"))


@pytest.fixture(scope="module")
def split(graph: Graph) -> Plan:
    return plan(graph, load_topology(EXAMPLE), objective="throughput")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_plan_on_one_screen(graph: Graph, split: Plan, width: int) -> None:
    to = console(width)
    print_plan(to, split, graph, {})
    text = printed(to)
    assert len(text.splitlines()) <= 34
    for tier in ("edge", "near", "cloud"):
        assert f"all on {tier}" in text
    assert "Splitting pays: 1.45x the throughput of everything on" in " ".join(text.split())
    assert f"{split.pareto_count} unbeaten plans found" in text
    assert f"({split.pareto_count - 4} more with --json --pareto" in text


def test_a_wide_plan_says_what_crosses(graph: Graph, split: Plan) -> None:
    to = console(140)
    print_plan(to, split, graph, {})
    crossing = split.figures.links[1]
    row = next(line for line in printed(to).splitlines() if f" {crossing.position} " in line)
    assert f"`{crossing.values[0]}`" in row
    assert "201 kB" in row


@pytest.mark.parametrize("width", WIDTHS)
def test_an_inspection(graph: Graph, width: int) -> None:
    to = console(width)
    print_inspection(to, Inspection(measure(graph, bind_shapes(graph))))
    text = printed(to)
    assert "2.83 GMAC" in text
    assert "98.6%" in text
    assert "Some sizes are unknown" not in text


def test_an_operator_that_nobody_knows_is_not_free(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "odd" : 1]>
    g (float[4] x) => (float[4] y) { z = odd.Strange (x) y = Relu (z) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "odd.onnx")
    odd = load_graph(tmp_path / "odd.onnx")
    to = console(80)
    print_inspection(to, Inspection(measure(odd, bind_shapes(odd))))
    assert "Not counted, so the work is more than shown: " in printed(to)
    assert "odd::Strange (1)" in printed(to)


def test_bars_start_where_the_one_before_stops() -> None:
    figures = made((4, 6), (1.0, 2.0, 1.0), (4.0, 2.0), (1.0, 1.0, 1.0)).figures
    assert waterfall(figures, 10, Glyphs("#", ".", "->", "-")) == ["#....", "     ##..", "         #"]


def test_whatever_takes_time_has_a_bar() -> None:
    figures = made((4, 6), (1e-6, 5.0, 1e-6), (1e-6, 1e-6), (1.0, 1.0, 1.0)).figures
    bars = waterfall(figures, 8, Glyphs("#", ".", "->", "-"))
    assert all("#" in bar for bar in bars)
    assert all(len(bar) <= 8 for bar in bars)


def verification(**changes: object) -> dict[str, object]:
    output = {"name": "y", "bitwise": True, "within_tolerance": True, "max_abs_diff": 0.0, "vacuous": None}
    found: dict[str, object] = {
        "passed": True,
        "bitwise": True,
        "max_abs_diff": 0.0,
        "optimized_max_abs_diff": 1e-7,
        "whole_optimization_shift": 2e-7,
        "outputs": [output],
        "boundaries": [],
        "not_comparable": [],
        "assumed": {},
        "inputs": "generated",
        "seed": 0,
        "runs": 2,
        "error": None,
        "notes": [],
    }
    return found | changes


@pytest.mark.parametrize("width", WIDTHS)
def test_a_proof(width: int) -> None:
    to = console(width)
    print_verification(to, verification())
    assert "Verified: the chain equals the whole model bit for bit" in printed(to)


def test_a_proof_that_fails_names_the_value() -> None:
    output = {"name": "y", "bitwise": False, "within_tolerance": True, "max_abs_diff": None, "vacuous": None}
    boundary = {"name": "z", "tier": "edge", "bitwise": False, "max_abs_diff": 0.5, "vacuous": None}
    to = console(80)
    changes = {
        "passed": False,
        "bitwise": False,
        "max_abs_diff": None,
        "outputs": [output],
        "boundaries": [boundary],
    }
    print_verification(to, verification(**changes))
    text = printed(to)
    assert "FAILED: the chain differs from the whole model by infinity." in text
    assert "z (made on edge)" in text


def test_what_a_proof_leaves_open_is_said_once() -> None:
    output = {
        "name": "y",
        "bitwise": True,
        "within_tolerance": True,
        "max_abs_diff": 0.0,
        "vacuous": "it is constant",
    }
    notes = [
        "agreement on output `y` proves little: it is constant",
        "output `r` was not compared: noise",
    ]
    to = console(100)
    print_verification(to, verification(outputs=[output], notes=notes))
    text = printed(to)
    assert text.count("proves little") == 1
    assert "Agreement on output `y` proves little: it is constant." in text
    assert "Output `r` was not compared: noise." in text


@pytest.mark.parametrize("width", WIDTHS)
def test_a_benchmark(width: int) -> None:
    row = {
        "provider": "cpu",
        "p50_ms": 12.3,
        "p95_ms": 15.0,
        "p99_ms": 15.5,
        "throughput_per_s": 80.0,
        "runs": 20,
    }
    report = {
        "slices": [{"tier": "edge", "cpu_nodes": ["a", "b"], **row}],
        "chain": row,
        "whole": row | {"p50_ms": 12.0},
        "chain_vs_whole": 1.025,
        "notes": ["the machine was busy"],
        "machine": {"cpu": "a processor", "cores": 2},
    }
    to = console(width)
    print_bench(to, report)
    text = printed(to)
    assert "slice edge" in text
    assert "Cutting costs +2.5%" in text
    assert "2 nodes of edge ran on the CPU instead: a, b." in text
    assert "the machine was busy" in text


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not stdout_console().is_terminal
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert stdout_console().color_system is not None
    assert not stdout_console().no_color
    monkeypatch.setenv("NO_COLOR", "1")
    assert stdout_console().no_color


def test_progress_without_a_terminal_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("working") as update:
        update(1, 2)
        update(2, 2, "still working")
    assert capfd.readouterr() == ("", "")


def test_progress_on_a_terminal_is_shown_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("dnnsplit_onnx.reporting.progress.threading.Timer", AtOnce)
    with progress("slicing") as update:
        update(1, 4)
        update(2, 4, "copying")
    assert "slicing" in terminal.getvalue() or "copying" in terminal.getvalue()


class AtOnce:
    """A timer that does not wait."""

    daemon = False

    def __init__(self, _: float, call: object) -> None:
        self.call = call

    def start(self) -> None:
        assert callable(self.call)
        self.call()

    def cancel(self) -> None:
        pass


def test_states_that_stay_are_told_apart() -> None:
    graph = load_graph(Decoder().model())
    sizes = {"batch": 1, "encoder": 9, "past_decoder": 5}
    to = console(140)
    print_inspection(to, Inspection(measure(graph, bind_shapes(graph, sizes))))
    lines = printed(to).splitlines()
    assert lines[1].startswith("reads `input_ids` (int64 1 x 1), makes `logits`")
    assert lines[2].startswith(
        "keeps 2 states on their tiers: `past_key_values.0.decoder.key` (float 1 x 5 x 8)"
    )
    assert lines[3].startswith("reads once in a sequence: `past_key_values.0.encoder.key` (float 1 x 9 x 8)")


def test_a_difference_within_the_spread_is_no_verdict() -> None:
    whole = {"p50_ms": 10.0, "spread_ms": 2.0}
    assert cutting_costs({"p50_ms": 12.5, "spread_ms": 1.0}, whole).startswith("Cutting costs +25.0%")
    assert cutting_costs({"p50_ms": 11.5, "spread_ms": 1.0}, whole).startswith("What cutting costs cannot be")
    assert cutting_costs({"p50_ms": 12.5, "spread_ms": 3.0}, whole).startswith("What cutting costs cannot be")
