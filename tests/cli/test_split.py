"""`split`, `verify` and `bench`: slices that are proven, or no slices."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from tests.cli.conftest import TIERS, Run

SPLIT = ("--bind", "batch=1", "--at", "block1_add")


def test_split_makes_what_the_design_says(run: Run, tiny: Path, tiers: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    ended = run("split", tiny, "--tiers", tiers, *SPLIT, "-o", folder, "--json")
    assert ended.code == 0
    found = ended.json
    assert found["verification"]["passed"]
    assert found["verification"]["bitwise"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert found["slices"] == manifest["slices"]
    assert (folder / manifest["model"]["path"]).resolve() == tiny.resolve()
    for record in manifest["slices"]:
        assert record["file"] == f"{record['tier']}/model.onnx"
        onnx.checker.check_model(folder / record["file"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiers.toml"]


def test_the_screen_ends_with_what_to_do(run: Run, tiny: Path, tiers: Path, tmp_path: Path) -> None:
    ended = run("split", tiny, "--tiers", tiers, *SPLIT, "-o", tmp_path / "out")
    assert ended.code == 0
    assert "Verified: the chain equals the whole model bit for bit (1 output)." in ended.out
    assert ended.out.splitlines()[-1] == f"next: dnnsplit-onnx bench {tmp_path / 'out'}"
    assert "\x1b" not in ended.out


def test_existing_output_is_untouched_without_force(
    run: Run, tiny: Path, tiers: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    assert run("split", tiny, "--tiers", tiers, *SPLIT, "-o", folder, "--no-verify").code == 0
    before = (folder / "manifest.json").read_bytes()
    refused = run("split", tiny, "--tiers", tiers, "--bind", "batch=2", "-o", folder)
    assert refused.code == 2
    assert "hint: pass --force to replace it" in refused.err
    assert (folder / "manifest.json").read_bytes() == before
    assert run("split", tiny, "--tiers", tiers, "--bind", "batch=2", "-o", folder, "--force").code == 0
    assert (folder / "manifest.json").read_bytes() != before


def test_slices_that_fail_the_proof_are_not_left(
    run: Run, tiny: Path, tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    assert run("split", tiny, "--tiers", tiers, *SPLIT, "-o", folder).code == 0
    before = (folder / "manifest.json").read_bytes()
    seen: list[Path] = []

    def fail(place: Path, *_: object, **__: object) -> Any:
        seen.append(place)
        assert (place / "manifest.json").is_file()
        proof = {"passed": False, "bitwise": False, "error": None, "max_abs_diff": 0.25}
        return SimpleNamespace(passed=False, bitwise=False, codes=(), to_dict=lambda: proof)

    monkeypatch.setattr("dnnsplit_onnx.measuring.verification.verify", fail)
    ended = run("split", tiny, "--tiers", tiers, "--bind", "batch=2", "-o", folder, "--force", "--json")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(
        "error: the chain differs from the whole model by 0.25\n  nothing was written\nhint: "
    )
    assert (folder / "manifest.json").read_bytes() == before
    assert not seen[0].exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiers.toml"]


def test_a_missing_runtime_is_known_before_the_work(
    run: Run, tiny: Path, tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dnnsplit_onnx.runtime.provider.installed_runtimes", dict)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    ended = run("split", tiny, "--tiers", tiers, *SPLIT, "-o", tmp_path / "out")
    assert ended.code == 2
    assert ended.err == "error: onnxruntime is not installed\nhint: pip install 'dnnsplit-onnx[cpu]'\n"
    assert run("split", tiny, "--tiers", tiers, *SPLIT, "-o", tmp_path / "out", "--no-verify").code == 0


def test_a_plan_file_is_followed(run: Run, tiny: Path, tiers: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    made = run("plan", tiny, "--tiers", tiers, *SPLIT, "-o", file, "--json").json
    found = run("split", tiny, "--plan", file, "-o", tmp_path / "out", "--no-verify", "--json").json
    assert found["stages"] == made["stages"]
    assert found["verification"] is None


def test_a_plan_file_excludes_what_it_has_settled(run: Run, tiny: Path, tiers: Path, tmp_path: Path) -> None:
    ended = run("split", tiny, "--plan", tmp_path / "plan.json", "--tiers", tiers)
    assert ended.code == 2
    assert ended.err.startswith("error: `--tiers` and `--plan` exclude each other")


def test_a_plan_of_another_model(run: Run, tiny: Path, tiers: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    assert run("plan", "zoo:light_squeezenet", "--tiers", tiers, "-o", file).code == 0
    ended = run("split", tiny, "--plan", file, "-o", tmp_path / "out")
    assert ended.code == 2
    assert "\nerror: the plan is of another model than `tiny.onnx`" in ended.err
    assert not (tmp_path / "out").exists()


def test_cuts_by_name_and_a_tier_without_work(run: Run, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "three.toml"
    path.write_text('[[tier]]\nname="roof"\ngflops=1\n[[link]]\nbandwidth_mbps=1\n' + TIERS)
    found = run(
        *("split", tiny, "--tiers", path, "--bind", "batch=1", "--at", "block1_add", "--at", "block1_add"),
        *("-o", tmp_path / "out", "--json"),
    ).json
    assert [record["file"] for record in found["slices"]] == ["roof/model.onnx", None, "cloud/model.onnx"]
    assert found["verification"]["bitwise"]


def test_a_cut_that_names_nothing(run: Run, tiny: Path, tiers: Path, tmp_path: Path) -> None:
    ended = run(
        "split", tiny, "--tiers", tiers, "--bind", "batch=1", "--at", "nowhere", "-o", tmp_path / "out"
    )
    assert (ended.code, ended.out) == (2, "")
    assert "`nowhere`" in ended.err.splitlines()[0]


def test_verify_compares_on_given_inputs(run: Run, slices: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "x.npz"
    np.savez(inputs, input=np.linspace(-1, 1, 3 * 64 * 64, dtype=np.float32).reshape(1, 3, 64, 64))
    ended = run("verify", slices, "--input", inputs, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json["bitwise"]
    assert ended.json["passed"]
    assert ended.json["inputs"] == str(inputs)
    assert ended.json["max_abs_diff"] == ended.json["max_rel_diff"] == 0


def test_verify_fails_with_1_and_still_reports(
    run: Run, tiny: Path, tiers: Path, slices: Path, tmp_path: Path
) -> None:
    # The slices of a model with another weight, under the manifest of the first: every
    # checksum is right and the outputs are not.
    other = onnx.load(tiny)
    weight = next(tensor for tensor in other.graph.initializer if tensor.name == "classifier.b")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.zeros(10, dtype=np.float32), weight.name))
    onnx.save(other, tmp_path / "other.onnx")
    at = json.loads((slices / "manifest.json").read_text())["plan"]["links"][0]["position"]
    words = ("--tiers", tiers, "--bind", "batch=1", "--at", at, "-o", tmp_path / "out", "--no-verify")
    assert run("split", tmp_path / "other.onnx", *words).code == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest["model"] = json.loads((slices / "manifest.json").read_text())["model"]
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))

    ended = run("verify", tmp_path / "out", "--model", tiny, "--json")
    assert ended.code == 1
    assert ended.json["passed"] is False
    assert ended.json["max_abs_diff"] > 0
    assert ended.err.startswith("error: the chain differs from the whole model by ")
    shown = run("verify", tmp_path / "out", "--model", tiny)
    assert shown.code == 1
    assert "FAILED" in shown.out


def test_verify_refuses_a_slice_that_was_changed(run: Run, tiny: Path, tiers: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert run("split", tiny, "--tiers", tiers, *SPLIT, "-o", folder, "--no-verify").code == 0
    file = folder / "cloud" / "model.onnx"
    content = file.read_bytes()
    for changed in (content + b"\0", content[:-1] + b"\1", content[:-1]):
        file.write_bytes(changed)
        ended = run("verify", folder)
        assert ended.code == 2
        assert "its checksum differs" in ended.err


def test_slices_of_all_candidates(run: Run, tiny: Path, tiers: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    ended = run("split", tiny, "--tiers", tiers, *SPLIT, "-o", folder, "--all-candidates", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["verification"]["bitwise"]
    ranges = sorted(path.name for path in (folder / "edge").glob("*.onnx"))
    assert len(ranges) > 2
    assert all(name.startswith("0-") for name in ranges)


def test_proof_on_given_inputs(run: Run, tiny: Path, tiers: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "x.npz"
    np.savez(wrong, other=np.zeros(3))
    ended = run("split", tiny, "--tiers", tiers, *SPLIT, "-o", tmp_path / "out", "--input", wrong)
    assert ended.code == 2
    assert "`other`" in ended.err or "missing" in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_a_folder_without_slices(run: Run, tmp_path: Path, command: str) -> None:
    ended = run(command, tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: no manifest")


def test_bench_reports_slices_chain_and_whole(run: Run, slices: Path) -> None:
    ended = run("bench", slices, "--runs", "3", "--json")
    assert (ended.code, ended.err) == (0, "")
    found = ended.json
    keys = {"provider", "p50_ms", "p95_ms", "p99_ms", "runs"}
    assert all({"tier", *keys} <= row.keys() for row in found["slices"])
    assert keys <= found["chain"].keys()
    assert keys <= found["whole"].keys()
    assert found["chain"]["runs"] == 3


def test_bench_of_one_tier(run: Run, slices: Path) -> None:
    ended = run("bench", slices, "--tier", "edge", "--runs", "2")
    assert ended.code == 0
    assert "slice edge" in ended.out
    assert "whole model" not in ended.out
    missing = run("bench", slices, "--tier", "moon")
    assert missing.code == 2
    assert missing.err == "error: no tier `moon`\nhint: the tiers are `edge`, `cloud`\n"


def test_codes_are_chosen_split_and_verified(run: Run, tiny: Path, tiers: Path, tmp_path: Path) -> None:
    words = (tiny, "--tiers", tiers, *SPLIT, "--codes", "uint8,fp16")
    name = onnx.load(tiny).graph.input[0].name
    shape = [dim.dim_value or 1 for dim in onnx.load(tiny).graph.input[0].type.tensor_type.shape.dim]
    samples = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", **{name: samples})
    judged = ("--samples", tmp_path / "samples.npz", "--tolerance", "0.5")
    ended = run("split", *words, *judged, "-o", tmp_path / "out", "--json")
    assert ended.code == 0
    found = ended.json
    assert found["links"][0]["coded"]
    assert {port["code"] for port in found["slices"][0]["outputs"]} == {found["links"][0]["code"]}
    proof = found["verification"]
    assert proof["bitwise"]
    assert proof["samples"] == 3
    assert 0 < proof["output_error"] < 0.5
    assert [check["kept"] for check in proof["codes"]] == [True] * len(proof["codes"])
    assert "Verified: without its codes" in run("verify", tmp_path / "out").out
    strict = run("verify", tmp_path / "out", "--tolerance", "1e-12")
    assert strict.code == 1
    assert "allowed is 1e-12" in strict.err
    assert "--codes raw" in strict.err
    np.savez(tmp_path / "endless.npz", **{name: np.full_like(samples[0], np.inf)})
    endless = run("verify", tmp_path / "out", "--input", tmp_path / "endless.npz")
    assert endless.code == 1
    assert "NaN, infinity" in endless.err
    assert "--codes raw" in endless.err
    assert run("plan", *words, "--tolerance", "0.1").code == 2  # nothing to judge on


def test_a_plan_in_a_model_is_a_plan(run: Run, tiny: Path, tiers: Path, tmp_path: Path) -> None:
    given = ("--tiers", tiers, "--bind", "batch=1")
    noted = tmp_path / "a.onnx"
    assert run("plan", tiny, *given, "--at", "block1_add", "--annotate", noted).code == 0
    ended = run("split", tiny, *given, "--plan", noted, "-o", tmp_path / "out", "--json")
    assert ended.code == 0, ended.err
    direct = run("split", tiny, *given, "--at", "block1_add", "-o", tmp_path / "direct", "--json")
    assert [s["stop"] for s in ended.json["stages"]] == [s["stop"] for s in direct.json["stages"]]
    assert ended.json["verification"]["bitwise"]
    refused = run("plan", tiny, *given, "--annotate", noted)
    assert refused.code == 2
    assert "exists already" in refused.err


def test_slices_of_all_candidates_have_the_codes_that_samples_allow(
    run: Run, tiny: Path, tiers: Path, tmp_path: Path
) -> None:
    words = ("split", tiny, "--tiers", tiers, *SPLIT, "--codes", "fp16,uint8", "--all-candidates")
    ended = run(*words, "-o", tmp_path / "free")
    assert ended.code == 0, ended.err
    free = {path.name for path in (tmp_path / "free").glob("*/*.onnx")}
    assert any(".uint8" in name for name in free)
    assert any(".fp16" in name for name in free)
    ended = run(*words, "-o", tmp_path / "none", *_samples(tiny, tmp_path), "0")
    assert ended.code == 0, ended.err
    assert free > {path.name for path in (tmp_path / "none").glob("*/*.onnx")}


def test_codes_of_two_links_are_not_judged_cut_by_cut(run: Run, tiny: Path, tmp_path: Path) -> None:
    tiers = tmp_path / "three.toml"
    rows = [f'[[tier]]\nname = "{name}"\ngflops = {10.0**at}\n' for at, name in enumerate("abc")]
    tiers.write_text("".join(rows) + "[[link]]\nbandwidth_mbps = 50\n" * 2)
    samples = _samples(tiny, tmp_path)
    words = ("--bind", "batch=1", "--at", "1,2", "--codes", "uint8", "--all-candidates")
    ended = run("split", tiny, "--tiers", tiers, *words, *samples, "1", "-o", tmp_path / "out")
    assert ended.code == 2
    assert "judged cut by cut" in ended.err
    assert not (tmp_path / "out").exists()


def _samples(model: Path, folder: Path) -> tuple[object, ...]:
    """Options that judge codes on two random samples, but for the tolerance."""
    port = onnx.load(model).graph.input[0]
    shape = [dim.dim_value or 1 for dim in port.type.tensor_type.shape.dim]
    drawn = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    np.savez(folder / "s.npz", **{port.name: drawn})
    return "--samples", folder / "s.npz", "--tolerance"
