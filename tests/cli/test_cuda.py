"""Tiers on CUDA, from the command line, on a machine that has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dnnsplit_onnx.cli import main
from dnnsplit_onnx.machines.profiles import load_profile
from tests.cli.conftest import Run
from tests.providers import HAS_CUDA_BUILD, pretend_cuda, without_gpu

TIERS = """
[[tier]]
name = "edge"
{edge}

[[tier]]
name = "cloud"
{cloud}
provider = "cuda"
memory_gb = 2

[[link]]
bandwidth_mbps = {mbps}
delay_ms = 0.01
"""
without_cuda = pytest.mark.skipif(HAS_CUDA_BUILD, reason="this onnxruntime has CUDA")


def write_tiers(path: Path, edge: str = "gflops = 1", cloud: str = "gflops = 100", mbps: float = 100) -> Path:
    path.write_text(TIERS.format(edge=edge, cloud=cloud, mbps=mbps))
    return path


@pytest.fixture(scope="module")
def slices(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices for an edge on the CPU and a cloud on CUDA."""
    folder = tmp_path_factory.mktemp("cuda")
    tiers = write_tiers(folder / "tiers.toml")
    words = ("split", tiny, "--tiers", tiers, "--bind", "batch=1", "--at", "block1_add", "-o", folder / "s")
    assert main([*map(str, words), "--json"]) == 0
    return folder / "s"


def test_the_manifest_says_what_each_tier_runs_on(slices: Path) -> None:
    records = json.loads((slices / "manifest.json").read_text())["slices"]
    assert [record["provider"] for record in records] == ["cpu", "cuda"]
    assert [record["memory_nbytes"] for record in records] == [None, 2 * 10**9]


def test_all_candidates_say_it_too(run: Run, tiny: Path, tmp_path: Path) -> None:
    tiers = write_tiers(tmp_path / "tiers.toml")
    assert run("split", tiny, "--tiers", tiers, "--bind", "batch=1", "--all-candidates", "--no-verify",
               "-o", tmp_path / "s").code == 0  # fmt: skip
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert {(record["tier"], record["provider"]) for record in manifest["candidates"]} == {
        ("edge", "cpu"),
        ("cloud", "cuda"),
    }


@without_cuda
def test_the_next_command_after_split_runs_here(run: Run, tiny: Path, tmp_path: Path) -> None:
    tiers = write_tiers(tmp_path / "tiers.toml")
    split = ("split", tiny, "--tiers", tiers, "--bind", "batch=1", "--at", "block1_add", "--no-verify")
    ended = run(*split, "-o", tmp_path / "s")
    assert ended.out.strip().endswith(f"next: dnnsplit-onnx bench {tmp_path / 's'} --provider cpu")


@without_cuda
@pytest.mark.parametrize(
    "command",
    [("bench", "{}"), ("verify", "{}", "--provider", "tier"), ("serve", "{}/cloud", "--port", "0")],
    ids=lambda words: words[0],
)
def test_a_tier_planned_for_cuda_does_not_run_elsewhere_in_silence(
    run: Run, slices: Path, command: tuple[str, ...]
) -> None:
    ended = run(*(word.format(slices) for word in command))
    assert ended.code == 2
    assert ended.out == ""
    assert "error: provider `cuda` is asked for, and this onnxruntime" in ended.err
    assert "tier `cloud` was planned for it" in ended.err
    assert ended.err.strip().endswith("to run it on the CPU all the same: --provider cpu")


@pytest.mark.parametrize(
    "command",
    [
        ("bench", "{slices}", "--json"),
        ("bench", "{slices}", "--tier", "cloud", "--json"),
        ("verify", "{slices}", "--provider", "cuda", "--json"),
        ("serve", "{slices}/edge", "--port", "0", "--provider", "cuda", "--json"),
        ("run", "{slices}", "--provider", "cuda", "--json"),
        (
            "profile",
            "{tiny}",
            "--bind",
            "batch=1",
            "--tier",
            "cloud",
            "-o",
            "{slices}/p",
            "--provider",
            "cuda",
        ),
    ],
    ids=lambda words: words[0],
)
def test_silent_fallback_is_refused_by_every_command(
    run: Run, slices: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    without_gpu(monkeypatch)
    ended = run(*(word.format(slices=slices, tiny=tiny) for word in command))
    assert ended.code == 2
    assert ended.out == ""
    assert (
        "error: provider `cuda` was asked for, and onnxruntime fell back to CPUExecutionProvider" in ended.err
    )
    assert "dnnsplit-onnx doctor" in ended.err


def test_the_cpu_may_be_named_in_its_place(run: Run, slices: Path) -> None:
    found = run("bench", slices, "--provider", "cpu", "--runs", "2", "--json").json
    assert [part["provider"] for part in found["slices"]] == ["cpu", "cpu"]
    assert found["chain_vs_whole"] > 0


def test_verify_is_on_the_cpu_unless_told(run: Run, slices: Path) -> None:
    found = run("verify", slices, "--json").json
    assert found["provider"] == "cpu"
    assert found["tolerance"]["rtol"] == 1e-4


def test_verify_on_the_tiers_own_providers(run: Run, slices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch)
    found = run("verify", slices, "--provider", "tier", "--json").json
    assert found["passed"]
    assert found["provider"] == "cpu+cuda"
    assert found["tolerance"]["rtol"] == 1e-2
    assert found["slices"] == [
        {"tier": "edge", "provider": "cpu", "cpu_nodes": [], "memcpy_nodes": 0},
        {"tier": "cloud", "provider": "cuda", "cpu_nodes": [], "memcpy_nodes": 0},
    ]
    text = run("verify", slices, "--provider", "tier").out
    assert "the chain on cpu+cuda is within" in text
    assert "allowed is 0.01 of the largest element" in " ".join(text.split())


def test_bench_on_the_tiers_own_providers(run: Run, slices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch)
    found = run("bench", slices, "--runs", "2", "--json").json
    assert [part["provider"] for part in found["slices"]] == ["cpu", "cuda"]
    assert (found["chain"]["provider"], found["whole"]["provider"]) == ("cpu+cuda", "cuda")
    assert found["chain_vs_whole"] is None  # the two ran on different things
    assert found["slices"][1]["memcpy_nodes"] == 0
    assert found["slices"][1]["copied_to_host"] == 1


def test_copies_for_nodes_that_fell_back_are_warned_of(
    run: Run, slices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dnnsplit_onnx.runtime import sessions
    from dnnsplit_onnx.runtime.placement import Placement

    pretend_cuda(monkeypatch)
    # Only CUDA makes such nodes; what is made of them is what is tested.
    monkeypatch.setattr(sessions, "placement_of", lambda *_: Placement(("nms (NonMaxSuppression)",), 2))
    monkeypatch.setattr(sessions, "fallback_nodes", lambda *_: None)
    warning = "slice `cloud` copies between device and host 2 times a run"
    bench = run("bench", slices, "--runs", "2", "--json").json
    assert bench["slices"][1]["memcpy_nodes"] == 2
    assert bench["slices"][1]["cpu_nodes"] == ["nms (NonMaxSuppression)"]
    assert any(warning in note for note in bench["notes"])
    text = " ".join(run("bench", slices, "--runs", "2").out.split())
    assert "1 node of cloud ran on the CPU instead: nms (NonMaxSuppression)." in text
    assert "copies 1 value to the device" in text or "copies 0 values to the device" in text
    found = run("verify", slices, "--provider", "tier", "--json").json
    assert found["slices"][1] == {
        "tier": "cloud",
        "provider": "cuda",
        "cpu_nodes": ["nms (NonMaxSuppression)"],
        "memcpy_nodes": 2,
    }
    assert any(warning in note for note in found["notes"])
    shown = " ".join(run("verify", slices, "--provider", "tier").out.split())
    assert "1 node of cloud ran on the CPU instead: nms (NonMaxSuppression)." in shown


@pytest.mark.parametrize("options", [("--provider", "cpu"), ("--tier", "edge")])
def test_cuda_graphs_need_cuda(
    run: Run, slices: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    pretend_cuda(monkeypatch)
    ended = run("bench", slices, "--cuda-graph", "--runs", "2", *options)
    assert ended.code == 2
    assert "--cuda-graph" in ended.err


def test_cuda_graphs_need_fixed_shapes(run: Run, slices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch)
    for words in (("bench", slices), ("serve", slices / "cloud", "--port", "0"), ("verify", slices)):
        named = ("--provider", "tier") if words[0] == "verify" else ()
        ended = run(*words, *named, "--cuda-graph")
        assert ended.code == 2
        assert "slice `cloud` cannot run as a CUDA graph: dimension `batch` of input" in ended.err


def test_a_tier_on_the_cpu_is_not_served_as_a_cuda_graph(run: Run, slices: Path) -> None:
    ended = run("serve", slices / "edge", "--port", "0", "--cuda-graph")
    assert ended.code == 2
    assert "tier `edge` does not run on `cuda`" in ended.err


def test_nodes_are_not_timed_one_by_one_on_cuda(run: Run, tiny: Path, tmp_path: Path) -> None:
    ended = run("profile", tiny, "--bind", "batch=1", "--tier", "cloud", "-o", tmp_path / "p.json",
                "--provider", "cuda", "--per-node")  # fmt: skip
    assert ended.code == 2
    assert "single nodes cannot be timed on `cuda`" in ended.err
    assert not (tmp_path / "p.json").exists()


@pytest.fixture(scope="module")
def profiles(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One machine's profile, measured; and another's, on CUDA and fifty times as fast."""
    folder = tmp_path_factory.mktemp("profiles")
    edge = folder / "edge.json"
    words = ("profile", tiny, "--bind", "batch=1", "--tier", "edge", "-o", edge, "--runs", "3", "--json")
    assert main([*map(str, words)]) == 0
    data: dict[str, Any] = json.loads(edge.read_text())
    # So slow that a plan depends on nothing this machine does while it is measured.
    for segment in data["segments"]:
        segment["seconds"] = 0.05
    slow = {"overhead_s": 1e-4, "whole_s": 0.05 * len(data["segments"]), "parts": []}
    edge.write_text(json.dumps(data | slow))
    for segment in data["segments"]:
        segment["seconds"] = 0.001
    fast = {"tier": "cloud", "provider": "cuda", "overhead_s": 1e-5, "whole_s": 0.001 * len(data["segments"])}
    (folder / "cloud.json").write_text(json.dumps(data | fast))
    return edge, folder / "cloud.json"


@pytest.mark.parametrize(("mbps", "work_on"), [(1e5, "cloud"), (1e-3, "edge")])
def test_a_plan_from_the_profiles_of_both_machines(
    run: Run, tiny: Path, tmp_path: Path, profiles: tuple[Path, Path], mbps: float, work_on: str
) -> None:
    edge, cloud = profiles
    tiers = write_tiers(tmp_path / "t.toml", f'profile = "{edge}"', f'profile = "{cloud}"', mbps)
    made = run("plan", tiny, "--tiers", tiers, "--bind", "batch=1", "--json").json
    assert made["cost_models"] == ["profile", "profile"]
    singles = {single["tier"]: single["latency_s"] for single in made["single_tier"]}
    assert singles["edge"] == pytest.approx(load_profile(edge).whole_s, rel=0.05)
    busiest = max(made["stages"], key=lambda stage: stage["seconds"])
    assert busiest["tier"] == work_on
    assert made["latency_s"] <= min(singles.values()) * (1 + 1e-9)


def test_a_profile_of_another_provider_is_refused_with_the_fix(
    run: Run, tiny: Path, tmp_path: Path, profiles: tuple[Path, Path]
) -> None:
    _, cloud = profiles
    tiers = write_tiers(tmp_path / "t.toml", f'profile = "{cloud}"', f'profile = "{cloud}"')
    ended = run("plan", tiny, "--tiers", tiers, "--bind", "batch=1")
    assert ended.code == 2
    assert "measured with another provider: cuda, not cpu" in ended.err
    assert 'write provider = "cuda" there' in ended.err


def test_deployments_take_the_provider_from_the_manifest(run: Run, slices: Path, tmp_path: Path) -> None:
    assert run("compose", slices, "-o", tmp_path / "deploy").code == 0
    text = (tmp_path / "deploy" / "docker-compose.yml").read_text()
    assert '"--provider", "cuda"' in text


def test_exports_take_the_provider_from_the_manifest(run: Run, slices: Path, tmp_path: Path) -> None:
    assert run("export", "triton", slices, "-o", tmp_path / "triton").code == 0
    kinds = {
        tier: (tmp_path / "triton" / tier / "config.pbtxt").read_text().partition("kind: ")[2].split()[0]
        for tier in ("edge", "cloud")
    }
    assert kinds == {"edge": "KIND_CPU", "cloud": "KIND_GPU"}
    named = ("--tier", "cloud", "--storage-uri", "pvc://m", "--provider", "cpu", "-o", tmp_path / "k.yaml")
    assert run("export", "kserve", slices, *named).code == 0
    assert "nvidia.com/gpu" not in (tmp_path / "k.yaml").read_text()
