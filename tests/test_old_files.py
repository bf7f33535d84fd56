"""Files of every schema version so far still load, and still mean the same.

`tests/data/vN` was written by the first release of version N (`scripts/lib/samples.py`) and is
never written again. Whoever raises a schema version adds a folder, and reads the old ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dnnsplit_onnx import (
    bench,
    load_graph,
    load_manifest,
    load_plan,
    load_topology,
    slice_model,
    verify,
)
from dnnsplit_onnx.cli.app import main
from dnnsplit_onnx.errors import ManifestError, PlanError, ProfileError
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines import profiles
from dnnsplit_onnx.machines.profiles import load_profile
from dnnsplit_onnx.planning import plans
from dnnsplit_onnx.slicing import manifest as manifests
from dnnsplit_onnx.work.analysis import measure
from dnnsplit_onnx.work.orders import in_order

DATA = Path(__file__).parent / "data"
VERSIONS = sorted(path.name for path in DATA.glob("v*"))
FORMATS = {
    "plan.json": (load_plan, PlanError),
    "edge.profile.json": (load_profile, ProfileError),
    "slices/manifest.json": (load_manifest, ManifestError),
}


def keys(data: Any, above: str = "") -> Iterator[str]:
    """The paths of all keys, whatever the positions in lists."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield f"{above}{key}"
            yield from keys(value, f"{above}{key}.")
    elif isinstance(data, list):
        for value in data:
            yield from keys(value, above)


def test_there_are_samples_of_every_version() -> None:
    newest = max(manifests.SCHEMA_VERSION, plans.SCHEMA_VERSION, profiles.SCHEMA_VERSION)
    assert [f"v{number}" for number in range(1, newest + 1)] == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_a_manifest_and_its_slices(version: str) -> None:
    folder = DATA / version / "slices"
    manifest = load_manifest(folder)
    assert [record.tier for record in manifest.slices] == ["edge", "cloud"]
    assert len(manifest.candidates) == 8
    assert [port.name for port in manifest.slices[1].inputs] == ["c"]
    proof = verify(folder)
    assert proof.bitwise
    assert proof.passed
    report = bench(folder, runs=1, warmup=0)
    assert [part.tier for part in report.slices] == ["edge", "cloud"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan(version: str, tmp_path: Path) -> None:
    folder = DATA / version
    plan = load_plan(folder / "plan.json")
    assert plan.cuts == (0,)
    assert plan.optimality == "dag"
    assert plan.best_single_tier is not None
    assert plan.best_single_tier.tier == "cloud"
    assert plans.Plan.from_dict(plan.to_dict()) == plan
    graph = load_graph(folder / "model.onnx")
    analysis = in_order(measure(graph, bind_shapes(graph, plan.bindings)), plan.order)
    slice_model(analysis.graph, plan, tmp_path / "out")
    assert verify(tmp_path / "out").bitwise


@pytest.mark.parametrize("version", VERSIONS)
def test_a_profile_and_tiers(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = DATA / version
    assert load_profile(folder / "edge.profile.json").nodes == 5
    assert load_topology(folder / "tiers.toml").names == ("edge", "cloud")
    words = ["plan", str(folder / "model.onnx"), "--bind", "batch=2", "--json"]
    assert main([*words, "--tiers", str(folder / "measured.toml")]) == 0
    assert json.loads(capsys.readouterr().out)["cost_models"] == ["profile", "gflops"]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_written_now_has_every_key(version: str, tmp_path: Path) -> None:
    # Within a version keys are added, and none goes.
    old, model = DATA / version, tmp_path / "model.onnx"
    for name in ("model.onnx", "weights.bin"):
        (tmp_path / name).write_bytes((old / name).read_bytes())
    about = [str(model), "--tiers", str(old / "tiers.toml"), "--bind", "batch=2"]
    profile = str(tmp_path / "edge.profile.json")
    assert main(["plan", *about, "-o", str(tmp_path / "plan.json")]) == 0
    assert main(["profile", str(model), "--tier", "edge", "--runs", "2", "-o", profile, *about[-2:]]) == 0
    assert main(["split", *about, "--at", "3", "--all-candidates", "-o", str(tmp_path / "slices")]) == 0
    for name in FORMATS:
        then, now = (json.loads((folder / name).read_text(encoding="utf-8")) for folder in (old, tmp_path))
        if then["schema_version"] == now["schema_version"]:
            assert set(keys(then)) - set(keys(now)) == set(), name


@pytest.mark.parametrize("name", FORMATS)
def test_a_version_of_the_future_is_refused(name: str, tmp_path: Path) -> None:
    load, error = FORMATS[name]
    data = json.loads((DATA / VERSIONS[-1] / name).read_text(encoding="utf-8"))
    data["schema_version"] = 1000
    (tmp_path / Path(name).name).write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(error, match="schema version 1000"):
        load(tmp_path / Path(name).name)
