"""What the page's sliders say is what Python plans, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dnnsplit_onnx.errors import InfeasibleError
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.choosing import plan, problem_of
from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.planners import exact
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.reporting.page.study import settings_now, study_of
from dnnsplit_onnx.reporting.reports import report
from dnnsplit_onnx.slicing.slicer import slice_model
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.analysis import Analysis
from tests.dags import random_workload
from tests.serving.web.chromium import Browser, Page
from tests.serving.web.node import chromium_program

PRICING = Path(__file__).parents[2] / "dnnsplit_onnx" / "reporting" / "page" / "pricing.js"
SAME = 1e-9
STUDIES, SETTINGS = 50, 20


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = chromium_program()
    if program is None:
        pytest.skip("needs the browser Chromium")
    with Browser(program, tmp_path_factory.mktemp("profile")) as browser:
        page = browser.page()
        page.evaluate(PRICING.read_text(encoding="utf-8") + "; globalThis.pricing = pricing; 1")
        yield page


def machines(rng: np.random.Generator) -> Topology:
    """Tiers and links of any kind: rooflines, rents, fees, rates, asymmetric links, limits."""

    def some(share: float) -> bool:
        return bool(rng.random() < share)

    def spread(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    tiers = []
    count = int(rng.integers(2, 5))
    for t in range(count):
        tier: dict[str, Any] = {"name": f"t{t}", "gflops": spread(1e-6, 1e-3), "watts": spread(1, 300)}
        tier["usd_per_hour"] = spread(0.01, 5)
        if t % 2:
            tier["idle_watts"] = 10 * tier["usd_per_hour"]
        if some(0.3):
            tier |= {"memory_gb_per_s": spread(1e-6, 1e-3), "overhead_us": spread(1, 100)}
        if some(0.2):
            tier["usd_per_request"] = spread(1e-8, 1e-5)
        if some(0.2):
            tier["memory_gb"] = spread(1e-7, 1e-5)
        if some(0.3):
            tier["replicas"] = int(rng.integers(1, 5))
        tiers.append(tier)
    links = []
    for _ in range(count - 1):
        link = {"bandwidth_mbps": spread(0.01, 10), "delay_ms": spread(0.1, 10), "watts": spread(0.1, 5)}
        link |= {"usd_per_gb": spread(0.01, 3)} if some(0.5) else {"usd_per_hour": spread(0.01, 3)}
        if some(0.4):
            link["down_mbps"] = spread(0.01, 10)
        links.append(link)
    data: dict[str, Any] = {"tier": tiers, "link": links, "limits": {"return_output": some(0.5)}}
    if some(0.3):
        data["workload"] = {"requests_per_s": spread(0.1, 20), "clients": int(rng.integers(1, 4))}
    if some(0.3):
        data["limits"] |= {"deadline_ms": spread(1, 1000)}
    if some(0.2):
        data["limits"] |= {"energy_j": spread(0.1, 100)}
    if some(0.2):
        data["limits"] |= {"throughput_per_s": spread(0.1, 10)}
    return parse_topology(data, "test")


def moved(topology: Topology, settings: dict[str, Any]) -> Topology:
    """The topology as the sliders stand."""
    for t, speed in enumerate(settings["speed"]):
        tier = topology.tiers[t]
        assert tier.gflops is not None
        fields: dict[str, Any] = {"gflops": tier.gflops * speed, "overhead_us": tier.overhead_us / speed}
        if tier.memory_gb_per_s is not None:
            fields["memory_gb_per_s"] = tier.memory_gb_per_s * speed
        topology = topology.with_tier(t, **fields)
    for t in range(len(topology.links)):
        fields = {"bandwidth_mbps": settings["mbps"][t], "delay_ms": settings["delay_ms"][t]}
        topology = topology.with_link(t, down_mbps=settings["down_mbps"][t], **fields)
    return topology.with_limits(return_output=settings["back"])


def anywhere(rng: np.random.Generator, topology: Topology) -> dict[str, Any]:
    """Sliders pushed anywhere."""

    def factor() -> float:
        return float(10 ** rng.uniform(-2, 2))

    now = settings_now(topology)
    return {
        "speed": [factor() for _ in now["speed"]],
        "mbps": [mbps * factor() for mbps in now["mbps"]],
        "down_mbps": [None if mbps is None else mbps * factor() for mbps in now["down_mbps"]],
        "delay_ms": [delay * factor() for delay in now["delay_ms"]],
        "back": bool(rng.random() < 0.5),
    }


def study(analysis: Analysis, topology: Topology) -> dict[str, Any]:
    problem = problem_of(analysis, topology)
    return study_of(problem, plan(analysis, topology, cuts=(0,) * len(topology.links)))


def best_of_python(problem: Problem) -> float | None:
    try:
        found = exact.along_order(problem)
    except InfeasibleError:
        return None
    return problem.figures(found.cuts).value(problem.objective)


def best_in_browser(tab: Page, data: dict[str, Any], asked: list[tuple[dict[str, Any], str]]) -> list[Any]:
    script = f"""(() => {{ const study = {json.dumps(data)};
      return {json.dumps(asked)}.map(([settings, aim]) => {{
        const found = pricing.best(study, settings, aim);
        return found && {{ cuts: found.cuts, value: pricing.value(found, aim), whole: found.whole,
          figures: [found.latency, found.cost, found.energy, 1 / found.throughput] }};
      }}); }})()"""
    answers = tab.evaluate(script)
    assert isinstance(answers, list)
    return answers


def test_the_browser_plans_as_python_does_in_a_thousand_settings(tab: Page) -> None:
    rng = np.random.default_rng(24)
    aims: list[Objective] = ["latency", "cost", "throughput", "energy"]
    compared = infeasible = same_cuts = 0
    for _ in range(STUDIES):
        analysis, topology = random_workload(rng, int(rng.integers(2, 25))), machines(rng)
        asked = [(anywhere(rng, topology), aims[int(rng.integers(4))]) for _ in range(SETTINGS)]
        answers = best_in_browser(tab, study(analysis, topology), asked)
        for (settings, aim), answer in zip(asked, answers, strict=True):
            problem = problem_of(analysis, moved(topology, settings), aim)
            expected = best_of_python(problem)
            if expected is None or answer is None:
                assert expected is None
                assert answer is None
                infeasible += 1
                continue
            assert answer["whole"]
            figures = problem.figures(tuple(answer["cuts"]))
            # What the browser says of its plan is what Python says of it, and no plan is better.
            known = (figures.latency_s, figures.cost_usd, figures.energy_j, 1 / figures.throughput_per_s)
            assert answer["figures"] == pytest.approx(known, rel=SAME)
            value = figures.value(aim)
            assert value == pytest.approx(expected, rel=SAME)
            same_cuts += tuple(answer["cuts"]) == exact.along_order(problem).cuts
            compared += 1
    assert compared + infeasible == STUDIES * SETTINGS
    assert infeasible < compared  # most settings have a plan to compare
    assert same_cuts > 0.9 * compared  # the others tie


def large_model(path: Path) -> None:
    """2,800 nodes in 200 layers with the long names that exporters give."""
    nodes, last = [], "pixel_values"
    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, [16, 16], np.zeros(256, np.float32).tobytes(), raw=True)
    ]
    for layer in range(200):
        skip = last
        for at in range(14):
            name = f"/model/vision_tower/encoder/layers.{layer}/self_attention/output_projection_{at}/Op"
            made = f"{name}_output_0"
            if at == 13:
                nodes.append(helper.make_node("Add", [last, skip], [made], name=name))
            elif at % 4 == 0:
                nodes.append(helper.make_node("MatMul", [last, "w"], [made], name=name))
            else:
                nodes.append(helper.make_node("Relu", [last], [made], name=name))
            last = made
    ends = [
        helper.make_tensor_value_info(one, TensorProto.FLOAT, [1, 16, 16]) for one in ("pixel_values", last)
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture(scope="module")
def large_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    large_model(folder / "model.onnx")
    (folder / "tiers.toml").write_text(TIERS)
    analysis = analyse(folder / "model.onnx")
    chosen = plan(analysis, folder / "tiers.toml", cuts=(1400, 2100))
    slice_model(analysis, chosen, folder / "slices")
    report(folder / "slices", folder / "r.html")
    return folder / "r.html"


TIERS = """
tier = [
  { name = "edge", gflops = 1e-3, usd_per_hour = 0.01, watts = 3 },
  { name = "fog", gflops = 1e-2, usd_per_hour = 0.1, watts = 30 },
  { name = "cloud", gflops = 1, usd_per_hour = 1, watts = 300 },
]
link = [
  { bandwidth_mbps = 10, delay_ms = 1, usd_per_hour = 0.1, watts = 2 },
  { bandwidth_mbps = 10, delay_ms = 1, usd_per_gb = 0.1, watts = 2 },
]
"""


@pytest.fixture(scope="module")
def large_tab(tab: Page, large_page: Path) -> Page:
    tab.go(large_page.as_uri())
    return tab


def test_a_page_of_2800_nodes_is_small(large_page: Path) -> None:
    assert large_page.stat().st_size < 2_000_000


def test_sliders_move_the_cut(large_tab: Page) -> None:
    assert large_tab.complaints == []
    before = large_tab.evaluate("document.getElementById('best').textContent")
    marks = large_tab.evaluate("document.querySelectorAll('.moved').length")
    assert marks > 0
    move = """(() => { const slider = document.getElementById('speed-2'); slider.value = -200;
      slider.dispatchEvent(new Event('input', { bubbles: true })); })()"""
    large_tab.evaluate(move)
    large_tab.until(f"document.getElementById('best').textContent !== {json.dumps(before)}")
    assert "all on fog" in large_tab.evaluate("document.getElementById('best').textContent")
    large_tab.evaluate("document.getElementById('keep').click()")
    large_tab.until("document.getElementById('plans').textContent.includes('kept 1')")
    large_tab.evaluate("document.getElementById('reset').click()")
    large_tab.until(f"document.getElementById('best').textContent === {json.dumps(before)}")


def test_a_cut_shows_its_tensors_and_a_node_its_neighbours(large_tab: Page) -> None:
    click = "document.querySelector('{}').dispatchEvent(new MouseEvent('click', {{ bubbles: true }}))"
    large_tab.evaluate(click.format("#graph-cut-0 line"))
    said = large_tab.evaluate("document.getElementById('picked').textContent")
    assert "Tensors that cross cut 1400" in said
    assert "layers.99/self_attention/output_projection_13/Op_output_0" in said
    large_tab.evaluate(click.format('[data-start="14"] circle'))
    said = large_tab.evaluate("document.getElementById('picked').textContent")
    assert "layers.1/" in said
    assert "13: Add" in said  # it reads what the layer before makes
    assert large_tab.evaluate("document.querySelectorAll('.row.near').length") >= 1


def test_blocks_fold(large_tab: Page) -> None:
    assert large_tab.evaluate("document.querySelectorAll('[data-start]').length") < 1000
    blocks = "[...document.querySelectorAll('details.block > summary')].map((one) => one.textContent)"
    said = large_tab.evaluate(blocks)
    assert any("layers.7/self_attention" in one and "14 nodes" in one for one in said)
