"""The HTML page: what it says, that nothing breaks out of it, and that it is the same twice."""

from __future__ import annotations

import base64
import hashlib
import re
import tomllib
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from dnnsplit_onnx.errors import InputError, PlanError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.models import write_model
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.planning.fitting import analysis_of
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.page import Facts, gather, render
from dnnsplit_onnx.reporting.page.evidence import command
from dnnsplit_onnx.reporting.page.markup import lines, number, sentence, tag
from dnnsplit_onnx.reporting.page.measured import Bench, load_bench
from dnnsplit_onnx.reporting.page.tiers_file import tiers_toml
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.slicing.manifest import Manifest
from dnnsplit_onnx.work.analysis import Analysis, measure
from dnnsplit_onnx.work.orders import in_order

EVIL = "</script><script>alert(1)</script>"
VOID = {"meta", "link", "input", "br", "hr"}

TIERS: dict[str, Any] = {
    "tier": [
        {"name": "edge", "gflops": 1, "usd_per_hour": 0.01, "watts": 3},
        {"name": "fog", "gflops": 20, "usd_per_hour": 0.4, "watts": 30},
        {"name": "cloud", "gflops": 1000, "usd_per_hour": 4, "watts": 300},
    ],
    "link": [
        {"bandwidth_mbps": 100, "delay_ms": 1, "usd_per_hour": 0.1, "watts": 2},
        {"bandwidth_mbps": 500, "delay_ms": 5, "usd_per_hour": 0.1, "watts": 2},
    ],
}
BENCH = {
    "slices": [
        {"tier": "edge", "provider": "cpu", "p50_ms": 4.5, "p95_ms": 5.5, "p99_ms": 6.5, "runs": 30},
    ],
    "chain": {"provider": "cpu", "p50_ms": 7.25, "p95_ms": 8, "p99_ms": 9, "runs": 30},
    "machine": {"cpu": "A fine <CPU>", "cores": 2},
    "notes": ["the whole model was not measured"],
}


class Page(HTMLParser):
    """A page as elements; fails where they are not nested as they must be."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self) -> str:
        return " ".join(data for where, data in self.texts if where not in ("style", "script"))


def workload_at(path: Path) -> Analysis:
    graph = load_graph(path)
    return in_order(measure(graph, bind_shapes(graph, {"batch": 1})), "envelope")


def facts_of(path: Path, folder: Path, topology: Topology, **options: Any) -> Facts:
    analysis = workload_at(path)
    given = {name: options.pop(name) for name in ("bench",) if name in options}
    made = plan(analysis, topology, **options)
    analysis = analysis_of(made, analysis)
    manifest = slice_model(analysis.graph, made, folder)
    return gather(manifest, made, analysis, topology, **given)


@pytest.fixture(scope="module")
def topology() -> Topology:
    return parse_topology(TIERS, "test")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zoo") / "tiny.onnx"
    write_model("tiny_residual", path)
    return path


@pytest.fixture(scope="module")
def facts(model: Path, topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """A model cut in two places by hand, its slices measured and verified."""
    folder = tmp_path_factory.mktemp("cut") / "slices"
    made = facts_of(model, folder, topology, cuts=(6, 12), bench=Bench.model_validate(BENCH))
    found = {"passed": True, "bitwise": True, "outputs": [{"name": "logits", "bitwise": True}]}
    manifest = made.manifest.model_copy(update={"verification": found})
    return gather(manifest, made.plan, made.inspection.analysis, topology, made.bench)


@pytest.fixture(scope="module")
def page(facts: Facts) -> str:
    return render(facts)


def test_it_asks_nothing_of_any_network(page: str) -> None:
    assert "http:" not in page
    assert "https:" not in page
    assert "//" not in re.sub(r"// .*", "", page)  # comments of the script
    for name, attributes in Page(page).elements:
        assert name not in ("iframe", "img", "object", "embed", "base", "form")
        for key in ("src", "href", "xlink:href", "action"):
            target = attributes.get(key) or ""
            assert target.startswith("#") or target in ("", "data:,"), (name, attributes)


def test_its_policy_names_its_own_style_and_script_alone(page: str) -> None:
    (policy,) = (m["content"] for m in Page(page).all("meta") if m.get("http-equiv"))
    assert policy is not None
    for kind in ("style", "script"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not any("style" in attributes for _, attributes in Page(page).elements)
    assert not any(key.startswith("on") for _, attributes in Page(page).elements for key in attributes)


def test_the_same_is_the_same(facts: Facts, page: str) -> None:
    assert render(facts) == page


def test_it_holds_what_a_reader_asks(facts: Facts, page: str) -> None:
    text = Page(page).text()
    assert "Splitting does not pay" in text
    for title in ("Where the time goes", "The graph", "Latency against cost", "Proof", "Make it again"):
        assert title in text
    assert facts.manifest.model.sha256 in text
    assert "Verified: the chain equals the whole model bit for bit (1 output)." in text
    assert "gflops = 20\n" in text
    for node in facts.inspection.analysis.graph.nodes:
        assert node.name in text
    for link in facts.plan.figures.links:
        assert all(value in text for value in link.values)


def test_measurements_stand_beside_predictions(page: str) -> None:
    text = Page(page).text()
    assert "4.50 ms" in text
    assert "7.25 ms" in text
    assert "A fine <CPU>" in text
    assert "the whole model was not measured" in text


def test_what_could_be_done_in_place_of_a_split_stands_on_the_page(page: str, facts: Facts) -> None:
    text = Page(page).text()
    assert "What could be done in place of this plan." in text
    assert facts.rivals is not None
    for row in facts.rivals.rows:
        assert row.name in text
    assert "In place of a split" not in render(replace(facts, rivals=None))


def test_without_measurements_there_is_no_section_of_them(facts: Facts) -> None:
    assert "Predicted and measured" not in render(replace(facts, bench=None))


def test_it_is_well_formed_and_its_links_lead_somewhere(page: str) -> None:
    found = Page(page)
    ids = Counter(attributes["id"] for _, attributes in found.elements if attributes.get("id"))
    assert max(ids.values()) == 1
    targets = [href[1:] for a in found.all("a") if (href := a.get("href"))]
    assert targets
    assert set(targets) <= set(ids)
    for _, attributes in found.elements:
        for key in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(key) in (None, *ids)


def test_it_can_be_used_without_seeing_it(page: str) -> None:
    found = Page(page)
    assert found.all("html")[0]["lang"] == "en"
    names = [name for name, _ in found.elements]
    for landmark in ("header", "nav", "main", "footer"):
        assert landmark in names
    assert names.count("h1") == 1
    levels = [int(name[1]) for name in names if re.fullmatch("h[1-6]", name)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert names.count("table") == names.count("caption")
    assert all(th.get("scope") in ("row", "col") for th in found.all("th"))
    for svg in found.all("svg"):
        assert svg.get("aria-hidden") == "true" or (svg["role"] == "img" and svg["aria-label"])
    assert all(button.get("aria-label") for button in found.all("button"))
    for attributes in (a for _, a in found.elements if a.get("tabindex")):
        assert attributes["role"] == "region"
        assert attributes["aria-label"]


def test_each_chart_is_drawn_for_wide_and_for_narrow(page: str) -> None:
    kinds = Counter(svg["class"] for svg in Page(page).all("svg") if svg.get("class"))
    assert kinds["chart wide"] == kinds["chart narrow"] >= 5


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A model whose every name tries to break out."""
    names = [EVIL + str(at) for at in range(5)]
    values = [f'"><img src=x onerror=alert({at})>' for at in range(6)]
    nodes = [helper.make_node("Relu", [values[at]], [values[at + 1]], name=names[at]) for at in range(4)]
    nodes.append(
        helper.make_node("]]>--><b>", [values[4]], [values[5]], name="`\n\x1b[31m\u202e", domain="<i>")
    )
    ends = [
        helper.make_tensor_value_info(value, TensorProto.FLOAT, ["batch", 8])
        for value in (values[0], values[5])
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("<i>", 1)]
    path = tmp_path / "<b>&'.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_names_cannot_break_out(hostile: Path, topology: Topology, tmp_path: Path, page: str) -> None:
    bench = Bench.model_validate(BENCH | {"notes": [EVIL], "machine": {EVIL: EVIL}})
    facts = facts_of(hostile, tmp_path / "out", topology, cuts=(2, 4), bench=bench)
    found = {"passed": False, "bitwise": False, "error": EVIL}
    manifest = facts.manifest.model_copy(update={"verification": found, "producer": EVIL})
    made = render(gather(manifest, facts.plan, facts.inspection.analysis, topology, bench))
    parsed = Page(made)
    assert {name for name, _ in parsed.elements} <= {name for name, _ in Page(page).elements}
    assert [one.get("id") for one in parsed.all("script")] == ["tensors", "study", None]
    assert EVIL not in made
    assert "onerror" not in {key for _, attributes in parsed.elements for key in attributes}
    assert EVIL + "0" in parsed.text()
    assert "\x1b" not in made
    assert "\u202e" not in made


def test_old_manifests_are_read(model: Path, topology: Topology, tmp_path: Path) -> None:
    facts = facts_of(model, tmp_path / "out", topology, cuts=(6, 12))
    data = facts.manifest.model_dump(mode="json")
    for key in ("node_order", "verification"):
        del data[key]
    del data["plan"]["topology"]
    manifest = Manifest.model_validate(data)
    made = gather(manifest, Plan.from_dict(manifest.plan), facts.inspection.analysis)
    text = Page(render(made)).text()
    assert "The tiers are not recorded in this manifest" in text
    assert "Not verified when the slices were made, or not recorded" in text
    assert "tiers.toml" in text  # in the command
    assert "Each position is the cut after so many nodes" in text


def test_a_single_tier_has_a_page(model: Path, tmp_path: Path) -> None:
    alone = parse_topology({"tier": TIERS["tier"][:1]}, "test")
    text = Page(render(facts_of(model, tmp_path / "out", alone))).text()
    assert "There is one tier, so there is nothing to split." in text
    assert "If a link changes" not in text


@pytest.mark.parametrize("objective", ["cost", "throughput", "energy"])
def test_every_objective_has_a_page(model: Path, topology: Topology, tmp_path: Path, objective: str) -> None:
    facts = facts_of(model, tmp_path / "out", topology, objective=objective)
    assert len(facts.links) == 2
    assert f"--objective {objective}" in Page(render(facts)).text()


def test_plans_that_keep_no_limit_are_said(model: Path, tmp_path: Path) -> None:
    tight = parse_topology(TIERS | {"limits": {"deadline_ms": 0.01}}, "test")
    facts = facts_of(model, tmp_path / "out", tight, cuts=(6, 12))
    text = Page(render(facts)).text()
    assert "This plan breaks a limit" in text
    assert "no plan keeps to the limits" in text


def test_what_cannot_be_planned_again_is_said(model: Path, topology: Topology, tmp_path: Path) -> None:
    facts = facts_of(model, tmp_path / "out", topology, cuts=(6, 12))
    tiers = [{"name": "edge", "profile": "nowhere.json"}, *TIERS["tier"][1:]]
    elsewhere = parse_topology(TIERS | {"tier": tiers}, "test")
    made = gather(facts.manifest, facts.plan, facts.inspection.analysis, elsewhere)
    assert made.links == ()
    assert any("nowhere.json" in note for note in made.notes)
    assert "nowhere.json" in Page(render(made)).text()


def test_plans_of_other_models_are_refused(model: Path, topology: Topology, tmp_path: Path) -> None:
    facts = facts_of(model, tmp_path / "out", topology, cuts=(6, 12))
    figures = facts.plan.figures
    analysis = facts.inspection.analysis
    last = figures.stages[-1]
    short = replace(figures, stages=(*figures.stages[:-1], replace(last, stop=last.stop - 1)))
    with pytest.raises(PlanError, match="not of this model"):
        gather(facts.manifest, replace(facts.plan, figures=short), analysis, topology)
    fewer = facts.manifest.model_copy(update={"slices": facts.manifest.slices[:2]})
    with pytest.raises(PlanError, match="does not fit its slices"):
        gather(fewer, facts.plan, analysis, topology)
    less = replace(figures, stages=(replace(figures.stages[0], flops=1), *figures.stages[1:]))
    made = gather(facts.manifest, replace(facts.plan, figures=less), analysis, topology)
    assert "counted otherwise" in made.notes[0]


def test_a_verification_that_cannot_be_read_is_no_proof(facts: Facts, topology: Topology) -> None:
    manifest = facts.manifest.model_copy(update={"verification": {"passed": "perhaps"}})
    made = gather(manifest, facts.plan, facts.inspection.analysis, topology)
    assert made.proof is None
    assert "verification that cannot be read" in made.notes[0]


def test_the_tiers_file_reads_as_it_was() -> None:
    strange = {
        "tier": [TIERS["tier"][0] | {"pin": ['a"b\\', "\x7f\n√"], "private": True}, *TIERS["tier"][1:]],
        "link": TIERS["link"],
        "limits": {"deadline_ms": 0.5, "return_output": True, "private_until": "x"},
        "input_nbytes": {"the image": 12},
    }
    topology = parse_topology(strange, "test")
    written = tiers_toml(topology)
    assert parse_topology(tomllib.loads(written), "written") == topology
    assert "deadline_ms = 0.5" in written


def test_the_command_gives_the_same_plan(model: Path, topology: Topology, tmp_path: Path) -> None:
    by_hand = facts_of(model, tmp_path / "one", topology, cuts=(6, 12))
    assert command(by_hand)[2:] == [
        "tiny.onnx", "--tiers", "tiers.toml", "--bind", "batch=1", "--at", "6,12", "-o", "slices",
    ]  # fmt: skip
    weighed = facts_of(
        model, tmp_path / "two", topology, objective="weighted", weights={"latency": 1, "cost": 1000}
    )
    words = command(weighed)
    assert words[words.index("--objective") + 1] == "weighted"
    assert words[words.index("--weight") + 1 :: 2][:2] == ["latency=1", "cost=1000"]
    other = facts_of(
        model, tmp_path / "three", topology, planner="exhaustive",
        accounting="layer-input",
    )  # fmt: skip
    assert command(other)[7:11] == ["--planner", "exhaustive", "--cut-size", "layer-input"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not what `bench` printed"),
        ('{"slices": [{"tier": "edge"}]}', "slices.0"),
        (
            '{"slices": [{"tier": "moon", "provider": "cpu", "runs": 1, "p50_ms": 1, '
            '"p95_ms": 1, "p99_ms": 1}]}',
            "no tier `moon`",
        ),
    ],
)
def test_other_files_than_benchs_are_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        load_bench(path, ["edge"])


def test_markup_escapes_text_and_keeps_markup() -> None:
    inner = tag("b", "<x>", title='"')
    assert inner == '<b title="&quot;">&lt;x&gt;</b>'
    assert tag("p", inner, None, ["&", inner]) == f"<p>{inner}&amp;{inner}</p>"
    assert (
        tag("p", hidden=True, open=False, class_="c", data_x=1.25) == '<p hidden class="c" data-x="1.2"></p>'
    )
    assert sentence("on `a<b`, now") == "on <code>a&lt;b</code>, now"
    assert sentence("a ` alone") == "a ` alone"
    assert lines("a\n<b>") == "a\n&lt;b&gt;"
    assert number(-0.01) == "0"


def test_codes_are_told(model: Path, tmp_path: Path) -> None:
    link = {"bandwidth_mbps": 1, "codes": ["fp16"]}
    coded = parse_topology({"tier": [TIERS["tier"][0], TIERS["tier"][2]], "link": [link]}, "test")
    facts = facts_of(model, tmp_path / "out", coded, cuts=(9,))
    (sent,) = facts.plan.figures.links
    assert sent.coded
    text = Page(render(facts)).text()
    assert f"written as fp16 in {units.nbytes(sent.coded[0].nbytes)}" in text


def test_machines_that_share_rows_are_told(model: Path, tmp_path: Path) -> None:
    machines = [{"name": "pi-a", "gflops": 0.01}, {"name": "pi-b", "gflops": 0.01}]
    edge = {"name": "edge", "machine": machines, "lan": {"bandwidth_mbps": 100}}
    shared = parse_topology({"tier": [edge, TIERS["tier"][2]], "link": [{"bandwidth_mbps": 1}]}, "test")
    facts = facts_of(model, tmp_path / "out", shared, cuts=(9,))
    shares = facts.plan.figures.stages[0].machines
    assert shares
    text = Page(render(facts)).text()
    assert "Machines of edge" in text
    for share in shares:
        assert share.machine in text
