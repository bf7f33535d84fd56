"""What the library computes by default is what the command computes by default, key by key.

Every model of the zoo that needs no framework is planned, swept, compared and inspected by
both; each runs with one objective here and with all of them under `slow`, by turns with a
profile of the edge.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import onnx
import pytest

from dnnsplit_onnx import load_graph, load_manifest, load_plan, plan, slice_model, verify
from dnnsplit_onnx.errors import InputError, PlanError
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.shapes import free_dimensions
from dnnsplit_onnx.machines.profiles import SCHEMA_VERSION, Profile, Segment
from dnnsplit_onnx.machines.tiers_file import load_topology
from dnnsplit_onnx.models import ENTRIES, model_path
from dnnsplit_onnx.planning.comparing import compare
from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.sweeping import sweep
from dnnsplit_onnx.slicing.manifest import Manifest
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.inspection import inspect
from tests.cli.conftest import Run

TIERS = """
[[tier]]
name = "edge"
{speed}
usd_per_hour = 0.01
watts = 6.4

[[tier]]
name = "cloud"
gflops = 1000
usd_per_hour = 4
watts = 250

[[link]]
bandwidth_mbps = 20
delay_ms = 1
watts = 1
"""
MODELS = sorted(name for name, entry in ENTRIES.items() if not entry.requires)
OBJECTIVES = ("latency", "cost", "throughput", "energy", "weighted")
WEIGHTS = {"latency": 1.0, "cost": 1000.0}
PLANNERS = ["exact", "neurosurgeon"]
AXIS = "link.0.bandwidth_mbps=1,100"
# Slices of larger ones are written under `slow`.
SMALL_NBYTES = 40_000_000


def cases() -> list[Any]:
    """Every model with every objective; all but one of each model are slow."""
    found = []
    for at, model in enumerate(MODELS):
        for turn, objective in enumerate(OBJECTIVES):
            is_first = turn == at % len(OBJECTIVES)
            marks = () if is_first else pytest.mark.slow
            has_profile = bool((at + turn) % 2)
            # Those with random weights have the graphs of those without.
            whole = not (is_first and model.startswith("random_"))
            found.append(pytest.param(model, objective, has_profile, whole, marks=marks))
    return found


def file_of(model: str, folder: Path) -> Path:
    """A model's file, in the test's folder where it is small enough to be sliced there."""
    path = model_path(model)
    if ENTRIES[model].weight_nbytes > SMALL_NBYTES:
        return path
    return Path(shutil.copy(path, folder / f"{model}.onnx"))


def write_tiers(folder: Path, graph: Graph, profile: bool) -> Path:
    """A tiers file, whose edge was measured in the file's order or has a speed."""
    speed = "gflops = 10"
    if profile:
        half = len(graph.nodes) // 2
        ends = [(0, half, 0.2), (half, len(graph.nodes), 0.1)] if half else [(0, len(graph.nodes), 0.3)]
        made = Profile(
            schema_version=SCHEMA_VERSION, producer="test", tier="edge", provider="cpu", threads=1,
            model="m", model_sha256=graph.file.sha256(), order="file", nodes=len(graph.nodes),
            bindings=bindings_of(graph), overhead_s=0.01, whole_s=0.31, machine={}, versions={},
            segments=tuple(
                Segment(start=start, stop=stop, seconds=seconds, spread_s=0.0, runs=9)
                for start, stop, seconds in ends
            ),
        )  # fmt: skip
        (folder / "edge.json").write_text(made.to_json())
        speed = 'profile = "edge.json"'
    path = folder / "tiers.toml"
    path.write_text(TIERS.format(speed=speed))
    return path


def bindings_of(graph: Graph) -> dict[str, int]:
    return dict.fromkeys(free_dimensions(graph, {}), 1)


def timeless(data: Any) -> Any:
    """A comparison as JSON, without how long planners took."""
    data = json.loads(json.dumps(data))
    for row in data["planners"]:
        del row["seconds"]
    return data


@pytest.mark.parametrize(("name", "objective", "profile", "whole"), cases())
def test_commands_and_library_agree(
    run: Run, tmp_path: Path, name: str, objective: Any, profile: bool, whole: bool
) -> None:
    model = file_of(name, tmp_path)
    graph = load_graph(model)
    bindings, tiers = bindings_of(graph), write_tiers(tmp_path, graph, profile)
    bind = [word for dim, number in bindings.items() for word in ("--bind", f"{dim}={number}")]
    weigh = [word for key, weight in WEIGHTS.items() for word in ("--weight", f"{key}={weight:g}")]
    weights = WEIGHTS if objective == "weighted" else None
    about = ("--tiers", tiers, "--objective", objective, *(weigh if weights else ()), *bind, "--json")

    analysis = analyse(model, bindings)
    assert run("inspect", model, *bind, "--json").json == inspect(model, bindings).to_dict()
    file = tmp_path / "plan.json"
    planned = run("plan", model, *about, "-o", file).json
    made = plan(graph, tiers, objective=objective, bindings=bindings, weights=weights)
    assert planned == made.to_dict()
    assert json.loads(file.read_text()) == planned
    assert load_plan(file) == made

    if not whole:
        return
    swept = run("sweep", model, *about, "--vary", AXIS).json
    library: Any = sweep(analysis, tiers, [AXIS], objective=objective, weights=weights)
    assert swept == library.to_dict()
    side_by_side = run("compare", model, *about, "--planners", ",".join(PLANNERS)).json
    library = compare(analysis, tiers, PLANNERS, objective=objective, weights=weights)
    assert timeless(side_by_side) == timeless(library.to_dict())
    if model.parent == tmp_path:
        check_slices(run, tmp_path, model, graph, file, about)


def check_slices(run: Run, folder: Path, model: Path, graph: Graph, file: Path, about: Any) -> None:
    """Slices of a plan by both, from the options and from the plan's file."""
    made = load_plan(file)
    manifest = slice_model(graph, made, folder / "library")  # in the file's order
    proof = verify(folder / "library").to_dict()
    for name, words in (("options", (*about, "--no-verify")), ("file", ("--plan", file, "--json"))):
        ended = run("split", model, *words, "-o", folder / name)
        assert ended.code == 0, ended.err
        assert ended.json["slices"] == [record.model_dump(mode="json") for record in manifest.slices]
        assert ended.json["verification"] == (json.loads(json.dumps(proof)) if name == "file" else None)
        assert {key: ended.json[key] for key in made.to_dict()} == made.to_dict()
        written = load_manifest(folder / name).model_copy(update={"verification": None})
        assert written == manifest
    assert sent(manifest) == set(made.figures.links[0].values)


def sent(manifest: Manifest) -> set[str]:
    """What the link carries, by the upper slice itself."""
    kept = {state.input for state in manifest.states}
    return {port.name for port in manifest.slices[1].inputs} - kept


def test_every_objective_and_model_is_in_the_default_run() -> None:
    quick = [case.values for case in cases() if not case.marks]
    assert {values[0] for values in quick} == set(MODELS)
    assert {values[1] for values in quick} == set(OBJECTIVES)
    # A function of the user's own is in the library alone; figures of texts are tested below.
    assert set(OBJECTIVES) == {*get_args(Objective)} - {"custom", "ttft", "tpot"}


@pytest.mark.parametrize("objective", ["ttft", "tpot"])
def test_a_text_is_planned_alike(run: Run, tmp_path: Path, objective: Any) -> None:
    tiers = tmp_path / "tiers.toml"
    tiers.write_text(
        "[[tier]]\nname = 'edge'\ngflops = 0.1\n[[tier]]\nname = 'cloud'\ngflops = 100\n"
        "[[link]]\nbandwidth_mbps = 100\ndelay_ms = 1\n[limits]\nttft_ms = 1000\n"
    )
    model = model_path("tiny_decoder")
    words = ("--prompt-tokens", 24, "--new-tokens", 8, "--conversations", 3, "--objective", objective)
    ended = run("plan", model, "--tiers", tiers, *words, "--json")
    assert ended.code == 0, ended.err
    machines = load_topology(tiers).with_workload(prompt_tokens=24, new_tokens=8, conversations=3)
    made = plan(model, machines, objective=objective)
    assert ended.json == json.loads(json.dumps(made.to_dict()))
    assert ended.json[f"{objective}_s"] == made.figures.value(objective)


@pytest.fixture
def inception(tmp_path: Path) -> Path:
    """A model whose order by the envelope is not its file's."""
    return file_of("random_inception_v1", tmp_path)


def test_a_plan_by_command_sends_in_python_what_it_says(run: Run, tmp_path: Path, inception: Path) -> None:
    # Slicing the graph as the file has it sent 648,960 bytes for a plan that said 259,584.
    file, graph = tmp_path / "plan.json", load_graph(inception)
    tiers = write_tiers(tmp_path, graph, profile=False)
    words = ("--tiers", tiers, "--objective", "throughput", "--json", "-o", file)
    said = run("plan", inception, *words).json["links"][0]
    manifest = slice_model(graph, load_plan(file), tmp_path / "out")
    assert sent(manifest) == set(said["values"])
    analysis = analyse(graph)
    assert sum(analysis.types.nbytes(value) or 0 for value in said["values"]) == said["nbytes"]


def test_positions_of_inspect_are_positions_of_the_library(run: Run, tmp_path: Path, inception: Path) -> None:
    tiers = write_tiers(tmp_path, load_graph(inception), profile=False)
    analysis = analyse(inception)
    for cut in run("inspect", inception, "--json").json["cuts"]:
        made = plan(analysis, tiers, cuts=[cut["position"]], pareto=False)
        assert (made.figures.links[0].values, made.cuts) == (tuple(cut["values"]), (cut["position"],))


def test_cuts_by_name_are_those_of_the_command(run: Run, tmp_path: Path, inception: Path) -> None:
    graph = load_graph(inception)
    tiers = write_tiers(tmp_path, graph, profile=False)
    one, other = graph.nodes[9].name, graph.nodes[11].name
    for name in (graph.nodes[20].name, graph.nodes[40].outputs[0], f"{one}+{other}"):
        made = plan(graph, tiers, cuts=[name])
        assert run("plan", inception, "--tiers", tiers, "--at", name, "--json").json == made.to_dict()
        manifest = slice_model(graph, made, tmp_path / "out", force=True)
        assert sent(manifest) == set(made.figures.links[0].values)


def test_a_profile_serves_whatever_order(tmp_path: Path, inception: Path) -> None:
    graph = load_graph(inception)
    tiers = write_tiers(tmp_path, graph, profile=True)  # measured in the file's order
    seconds = {
        order: [row.latency_s for row in plan(analyse(graph, order=order), tiers).single_tier]
        for order in ("envelope", "file")
    }
    assert seconds["envelope"] == pytest.approx(seconds["file"], rel=1e-12)
    assert seconds["file"][0] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("what", "wrong", "right"),
    [
        ("accounting", "layer_input", "layer-input"),
        ("objective", "latncy", "latency"),
        ("planner", "exakt", "exact"),
    ],
)
def test_names_are_checked(tmp_path: Path, tiny: Path, what: str, wrong: str, right: str) -> None:
    tiers = write_tiers(tmp_path, load_graph(tiny), profile=False)
    with pytest.raises(InputError) as refused:
        plan(tiny, tiers, bindings={"batch": 1}, **{what: wrong})  # type: ignore[arg-type]
    assert refused.value.message == f"no {what} is named `{wrong}`"
    assert (refused.value.hint or "").startswith(f"did you mean `{right}`?")


def test_a_plan_of_another_or_a_changed_model_is_refused(tmp_path: Path, tiny: Path) -> None:
    tiers = write_tiers(tmp_path, load_graph(tiny), profile=False)
    made = plan(tiny, tiers, bindings={"batch": 1})
    with pytest.raises(PlanError, match="another model than"):
        slice_model(load_graph(model_path("light_squeezenet")), made, tmp_path / "other")
    changed = onnx.load(tiny)
    next(node for node in changed.graph.node if node.op_type == "Relu").op_type = "Sigmoid"
    onnx.save(changed, tmp_path / "changed.onnx")
    with pytest.raises(PlanError, match="or the model has changed since"):
        slice_model(load_graph(tmp_path / "changed.onnx"), made, tmp_path / "other")
    custom = replace(made, order="custom", order_digest="0" * 64)
    with pytest.raises(PlanError, match="an order of its own that it does not hold"):
        slice_model(load_graph(tiny), custom, tmp_path / "other")
    stale = replace(made, order_digest="0" * 64)
    with pytest.raises(PlanError, match="in an order that this release does not make"):
        slice_model(load_graph(tiny), stale, tmp_path / "other")
    assert not (tmp_path / "other").exists()
