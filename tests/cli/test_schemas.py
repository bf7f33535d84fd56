"""JSON Schemas: made from the types they describe, and true of the files that are written."""

from __future__ import annotations

import json
import runpy
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError, PlanError, ProfileError, TopologyError
from dnnsplit_onnx.machines.predictors import Kind, Predictor, Trial, parse_timings
from dnnsplit_onnx.machines.profiles import Profile, Segment
from dnnsplit_onnx.machines.tiers_file import load_topology, parse_topology
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.schemas import NAMES, schema_text
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.cli.conftest import Run
from tests.reporting.plans_made import made

ROOT = Path(__file__).parents[2]
MODEL = "zoo:tiny_residual"


@cache
def validator(name: str) -> Any:
    schema = json.loads(schema_text(name))
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def check(name: str, data: Any) -> None:
    validator(name).validate(data)


def test_the_schemas_are_current() -> None:
    made_now = runpy.run_path(str(ROOT / "scripts" / "lib" / "schemas.py"))["texts"]()
    assert set(made_now) == {f"{name}.schema.json" for name in NAMES}
    for name in NAMES:
        # Compared as data: releases of pydantic differ in order, and in 0 and 0.0.
        current = json.loads(made_now[f"{name}.schema.json"])
        assert json.loads(schema_text(name)) == current, "run .venv/bin/python scripts/lib/schemas.py"


def test_an_unknown_schema_is_refused() -> None:
    with pytest.raises(InputError, match="no schema is named `slice`"):
        schema_text("slice")


def properties(schema: Any) -> list[tuple[str, Any]]:
    """Every property in a schema, at any depth."""
    found: list[tuple[str, Any]] = []
    if isinstance(schema, dict):
        found += schema.get("properties", {}).items()
        parts = [*schema.get("properties", {}).values(), *schema.get("definitions", {}).values()]
        for part in [*parts, schema.get("items")]:
            found += properties(part)
    return found


def test_every_key_of_a_tiers_file_is_explained_and_nothing_is_a_reference() -> None:
    schema = json.loads(schema_text("tiers"))
    assert "$ref" not in schema_text("tiers")
    assert [key for key, value in properties(schema) if not value.get("description")] == []
    assert {"name", "gflops", "bandwidth_mbps", "deadline_ms"} <= {key for key, _ in properties(schema)}


# What both the schema and the program take, and what both refuse.
TIER = {"name": "edge", "gflops": 1}
UPPER = {"name": "cloud", "gflops": 2}
LINK = {"bandwidth_mbps": 1}


@pytest.mark.parametrize(
    ("data", "taken"),
    [
        ({"tier": [TIER]}, True),
        ({"tier": [TIER, {"name": "b", "gflops": 2, "pin": ["x"]}], "link": [LINK]}, True),
        ({"tier": [{"name": "edge", "profile": "p.json"}]}, True),
        ({"tier": [TIER], "limits": {"deadline_ms": 5, "return_output": True}}, True),
        ({"tier": []}, False),
        ({}, False),
        ({"tier": [{"name": "edge"}]}, False),
        ({"tier": [TIER | {"profile": "p.json"}]}, False),
        ({"tier": [{"name": "edge", "profile": "p.json", "memory_gb_per_s": 1}]}, False),
        ({"tier": [TIER | {"gflops": 0}]}, False),
        ({"tier": [TIER | {"gflops": "1"}]}, False),
        ({"tier": [TIER | {"cores": 4}]}, False),
        ({"tier": [TIER | {"name": "a/b"}]}, False),
        ({"tier": [TIER | {"provider": "tpu"}]}, False),
        ({"tier": [TIER | {"min_prefix": -1}]}, False),
        ({"tier": [TIER, UPPER], "link": [{"delay_ms": 1}]}, False),
        (
            {"tier": [TIER, TIER | {"name": "b"}], "link": [LINK | {"usd_per_gb": 1, "usd_per_hour": 1}]},
            False,
        ),
        ({"tier": [TIER], "limits": {"deadline_s": 5}}, False),
        ({"tier": [TIER], "$schema": "tiers.schema.json"}, False),
    ],
)
def test_the_schema_and_the_program_agree_on_tiers(data: dict[str, Any], taken: bool) -> None:
    assert validator("tiers").is_valid(data) is taken
    if taken:
        assert parse_topology(data, "tiers.toml").names[0] == "edge"
    else:
        with pytest.raises(TopologyError):
            parse_topology(data, "tiers.toml")


def test_the_examples_are_valid() -> None:
    examples = sorted((ROOT / "examples").rglob("*.toml"))
    assert examples
    for path in examples:
        check("tiers", tomllib.loads(path.read_text()))
        load_topology(path)


@pytest.mark.parametrize("objective", ["latency", "throughput", "energy"])
def test_what_plan_prints_and_writes(run: Run, tiers: Path, tmp_path: Path, objective: str) -> None:
    tiers.write_text(tiers.read_text().replace("\n\n", "\nwatts = 5\n\n"))
    words = ("plan", MODEL, "--tiers", tiers, "--bind", "batch=1", "--objective", objective)
    ended = run(*words, "--json", "-o", tmp_path / "plan.json")
    assert ended.code == 0, ended.err
    check("plan", ended.json)
    written = json.loads((tmp_path / "plan.json").read_text())
    check("plan", written)
    # The schema leaves out nothing that is written, and readers pass over what editors need.
    assert written.keys() <= json.loads(schema_text("plan"))["properties"].keys()
    assert Plan.from_dict({"$schema": "plan.schema.json", **written}) == Plan.from_dict(written)


def test_a_plan_of_unknown_figures_is_valid() -> None:
    unknown = made((4,), (float("nan"), 0.0), (float("inf"),), (0.0, 2.0), limits={"deadline_ms": 1.0})
    data = unknown.to_dict()
    assert data["latency_s"] is None
    check("plan", data)


@pytest.mark.parametrize("at", ["", "stages", "links", "single_tier"])
def test_the_schema_knows_every_key_and_needs_what_the_reader_needs(at: str) -> None:
    data = made((4,), (1.0, 2.0), (3.0,), (4.0, 5.0)).to_dict()
    schema = json.loads(schema_text("plan"))
    if at:
        reference = schema["properties"][at]["items"]["$ref"].rpartition("/")[2]
        known, wanted = schema["definitions"][reference], data[at][0]
    else:
        known, wanted = schema, data
    assert wanted.keys() <= known["properties"].keys()
    for key in known["required"]:
        fewer = json.loads(json.dumps(data))
        del (fewer[at][0] if at else fewer)[key]
        assert not validator("plan").is_valid(fewer)
        if not at:
            with pytest.raises(PlanError):
                Plan.from_dict(fewer)


def test_what_split_prints_and_writes(run: Run, tiers: Path, tmp_path: Path) -> None:
    folder = tmp_path / "slices"
    words = ("split", MODEL, "--tiers", tiers, "--bind", "batch=1", "--at", "block1_add")
    ended = run(*words, "-o", folder, "--all-candidates", "--json")
    assert ended.code == 0, ended.err
    check("plan", ended.json)
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    check("manifest", data)
    assert data["candidates"]
    known = json.loads(schema_text("manifest"))
    assert data.keys() <= known["properties"].keys()
    assert data["slices"][0].keys() <= known["definitions"]["SliceRecord"]["properties"].keys()
    before = load_manifest(folder)
    path.write_text(json.dumps({"$schema": "manifest.schema.json", **data}))
    assert load_manifest(folder) == before


def profile() -> dict[str, Any]:
    """A profile as it is written."""
    segments = tuple(
        Segment(start=a, stop=b, seconds=1e-3, spread_s=1e-5, runs=5) for a, b in ((0, 2), (2, 3))
    )
    whole = Profile(
        schema_version=1, producer="dnnsplit-onnx", tier="edge", provider="cpu", threads=0, model="m.onnx",
        model_sha256="0" * 64, order="envelope", nodes=3, bindings={}, segments=segments, overhead_s=1e-5,
        whole_s=2e-3, machine={"cores": 4, "processor": "x"}, versions={"onnxruntime": "1"},
    )  # fmt: skip
    data: dict[str, Any] = json.loads(whole.to_json())
    return data


def test_a_profile() -> None:
    data = profile()
    check("profile", data)
    assert data.keys() <= json.loads(schema_text("profile"))["properties"].keys()
    assert np.isclose(Profile.model_validate({"$schema": "x", **data}).seconds_below(np.ones(3))[-1], 2e-3)


def without_plan(data: dict[str, Any]) -> None:
    del data["plan"]["stages"]


def newer(data: dict[str, Any]) -> None:
    data["schema_version"] = 99


def short_hash(data: dict[str, Any]) -> None:
    data["model"]["digests"] = {"sha256": "00"}


@pytest.mark.parametrize("spoil", [without_plan, newer, short_hash])
def test_a_spoilt_manifest_is_not_valid(slices: Path, spoil: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads((slices / "manifest.json").read_text())
    check("manifest", data)
    spoil(data)
    assert not validator("manifest").is_valid(data)


def predictor() -> dict[str, Any]:
    """A predictor as it is written."""
    kind = Kind(fixed_s=1e-6, per=(1e-12, 1e-10), nodes=4)
    whole = Predictor(
        schema_version=1, what="predictor", producer="dnnsplit-onnx", tier="edge", provider="cpu", threads=0,
        amounts=("flops", "nbytes"), kinds={"Conv": kind}, other=kind, overhead_s=1e-5,
        trials=(Trial(model="m.onnx", measured_s=1e-3, predicted_s=1.2e-3),),
        machine={"cores": 4}, versions={"onnxruntime": "1"},
    )  # fmt: skip
    data: dict[str, Any] = json.loads(whole.to_json())
    return data


def test_a_predictor() -> None:
    data = predictor()
    check("predictor", data)
    schema = json.loads(schema_text("predictor"))
    assert data.keys() <= schema["properties"].keys()
    assert [key for key, value in schema["properties"].items() if not value.get("description")] == []
    read = parse_timings(json.dumps({"$schema": "predictor.schema.json", **data}).encode(), "edge.json")
    assert json.loads(read.to_json()) == data


@pytest.mark.parametrize(
    "change",
    [{"schema_version": 2}, {"tier": None}, {"threads": "many"}, {"kinds": []}, {"amounts": "flops"},
     {"overhead_s": -1.0}, {"other": {"fixed_s": 1e-6, "per": [-1.0, 0.0], "nodes": 1}},
     {"trials": [{"model": "m.onnx"}]}],
)  # fmt: skip
def test_the_schema_and_the_program_refuse_the_same_predictors(change: dict[str, Any]) -> None:
    data = predictor() | change
    assert not validator("predictor").is_valid(data)
    with pytest.raises(ProfileError, match=next(iter(change))):
        parse_timings(json.dumps(data).encode(), "edge.json")
