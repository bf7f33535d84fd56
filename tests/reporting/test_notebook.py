"""What a notebook and rich show of a plan."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from dnnsplit_onnx import (
    Link,
    Tier,
    Topology,
    analyse,
    bench,
    compare,
    inspect,
    load_graph,
    plan,
    plan_html,
    slice_model,
    sweep,
    verify,
)
from dnnsplit_onnx.models import write_model
from tests.reporting.plans_made import made

VOID = {"br"}


class Reader(HTMLParser):
    """Reads HTML, and fails where an element is closed that is not the last one opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


PLANS = {
    "split": made((4,), (1e-3, 2e-3), (3e-3,), (9e-3, 8e-3)),
    "three tiers": made((4, 4), (1e-3, 0.0, 2e-3), (3e-3, 3e-3), (9e-3, 8e-3, 7e-3)),
    "one tier": made((), (1e-3,), (), (1e-3,)),
    "all above": made((0,), (0.0, 2e-3), (3e-3,), (9e-3, 8e-3)),
    "nothing sent": made((10,), (1e-3, 0.0), (0.0,), (1e-3, 8e-3)),
    "unknown": made((4,), (math.nan, 2e-3), (3e-3,), (9e-3, 8e-3)),
    "no time": made((4,), (0.0, 0.0), (0.0,), (0.0, 0.0)),
    "energy": made((4,), (1e-3, 2e-3), (3e-3,), (9e-3, 8e-3), objective="energy"),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_html_is_sound_and_complete(name: str) -> None:
    plan = PLANS[name]
    html = plan._repr_html_()
    found = Reader(html)
    assert found.tags.count("table") == found.tags.count("caption") == 2
    stages, links = len(plan.figures.stages), len(plan.figures.links)
    heads = 2  # of two tables
    assert found.tags.count("tr") == heads + stages + links + 1 + len(plan.single_tier)
    for stage in plan.figures.stages:
        assert stage.tier in found.text
    assert "script" not in found.tags
    assert "nan" not in html
    assert html == plan_html(plan)


def test_bars_are_shares_of_the_request() -> None:
    html = PLANS["split"]._repr_html_()
    assert [share in html for share in ("16.7% of the time", "33.3% of the time", "50.0% of the time")] == [
        True
    ] * 3
    assert html.count("<div style=") == 3
    assert PLANS["no time"]._repr_html_().count("<div style=") == 0


def test_the_verdict_comes_first() -> None:
    html = PLANS["split"]._repr_html_()
    assert html.index("Splitting pays: 1.33x faster than everything on `b`") < html.index("<table>")


def test_names_and_notes_are_escaped() -> None:
    plan = made((4,), (1e-3, 2e-3), (3e-3,), (9e-3, 8e-3), notes=("<b>bold</b>",), violations=("a < b",))
    html = plan._repr_html_()
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert "This plan breaks a limit: a &lt; b." in html


@pytest.mark.parametrize("name", PLANS)
def test_rich_prints_a_plan(name: str) -> None:
    console = Console(width=80, file=io.StringIO(), highlight=False)
    console.print(PLANS[name])
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "this plan" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    if name == "split":
        assert "Splitting pays" in text


def test_plans_load_no_report_until_they_are_shown() -> None:
    code = (
        "import sys\nfrom dnnsplit_onnx.planning.plans import Plan\n"
        "print(any(name.startswith('dnnsplit_onnx.reporting') or name == 'rich' for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_results_with_rows_show_them(tmp_path: Path) -> None:
    write_model("tiny_residual", tmp_path / "m.onnx")
    machines = Topology(
        tiers=[Tier("edge", gflops=1), Tier("cloud", gflops=20)],
        links=[Link(bandwidth_mbps=10, delay_ms=1)],
    )
    graph = load_graph(tmp_path / "m.onnx")
    work = analyse(graph, {"batch": 1})
    manifest = slice_model(work, plan(work, machines, cuts=(4,)), tmp_path / "out")
    results = {
        "graph": graph,
        "analysis": work,
        "inspection": inspect(work),
        "sweep": sweep(work, machines, ["link.0.bandwidth_mbps=1,10"]),
        "comparison": compare(work, machines, planners=["exact", "dads"]),
        "manifest": manifest,
        "verification": verify(tmp_path / "out"),
        "bench": bench(tmp_path / "out", runs=2),
    }
    for name, result in results.items():
        records = result.records()
        found = Reader(result._repr_html_())
        assert "table" in found.tags, name
        assert found.tags.count("tr") == min(len(records), 30) + 1, name
        json.dumps(result.to_dict(), allow_nan=False)
