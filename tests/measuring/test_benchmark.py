import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from dnnsplit_onnx.cli import main
from dnnsplit_onnx.errors import InputError, ManifestError, MissingExtraError, ModelError
from dnnsplit_onnx.measuring import benchmark
from dnnsplit_onnx.measuring.benchmark import bench
from tests.providers import HAS_CUDA_BUILD, without_gpu
from tests.running.folders import PERCEPTRON, edit_slice, scale_weight, split, with_weights

Write = Callable[..., Path]


@pytest.fixture
def model(model_text: Write) -> Path:
    return with_weights(model_text(PERCEPTRON))


@pytest.fixture
def folder(model: Path) -> Path:
    return split(model, 1, 1)  # the tier in the middle has no work


def test_measures_slices_chain_and_whole(folder: Path) -> None:
    report = bench(folder, runs=7, warmup=1)
    assert [measured.tier for measured in report.slices] == ["t0", "t2"]
    assert report.chain is not None
    assert report.whole is not None
    for measured in (*report.slices, report.chain, report.whole):
        assert measured.provider == "cpu"
        assert measured.latency.runs == 7
        assert 0 < measured.latency.min_ms <= measured.latency.p50_ms <= measured.latency.p99_ms
    # Stages are timed inside the chain, run by run.
    total = sum(measured.latency.mean_ms for measured in report.slices)
    assert total <= report.chain.latency.mean_ms
    assert report.overhead is not None
    assert report.notes == ()


def test_json_has_the_promised_keys(folder: Path) -> None:
    data = bench(folder, runs=2).to_dict()
    json.dumps(data, allow_nan=False)
    assert {"tier", "provider", "p50_ms", "p95_ms", "p99_ms", "runs"} <= data["slices"][0].keys()
    assert {"p50_ms", "throughput_per_s"} <= data["chain"].keys()
    assert "tier" not in data["whole"]
    assert ort.__version__ in data["machine"].values()


def test_warm_up_is_not_counted_and_progress_is_told(folder: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    report = bench(folder, runs=3, warmup=2, progress=lambda *step: seen.append(step))
    assert report.chain is not None
    assert report.chain.latency.runs == 3
    assert seen == [(0, 3, "warming up")] * 2 + [(at, 3, "measuring") for at in (1, 2, 3)]


def test_without_a_number_of_runs_the_time_decides(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = bench(folder)
    assert report.chain is not None
    assert report.chain.latency.runs == 100
    monkeypatch.setattr(benchmark, "_SECONDS", 0.0)
    report = bench(folder)
    assert report.chain is not None
    assert report.chain.latency.runs == 5


def test_no_runs_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="cannot measure 0 runs"):
        bench(folder, runs=0)


def test_a_device_that_has_only_its_own_tier(folder: Path, model: Path, tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.mkdir()
    shutil.copy(folder / "manifest.json", device)
    shutil.copytree(folder / "t2", device / "t2")
    model.unlink()
    report = bench(device, tier="t2", runs=3)
    assert [measured.tier for measured in report.slices] == ["t2"]
    assert (report.chain, report.whole, report.overhead) == (None, None, None)
    assert report.to_dict()["chain"] is None
    with pytest.raises(ManifestError, match="cannot read slice file"):
        bench(device, runs=3)


def test_a_tier_takes_the_inputs_of_its_slice(folder: Path) -> None:
    report = bench(folder, tier="t2", runs=2, inputs={"h": np.zeros((2, 6), np.float32)})
    assert report.source == "given"
    with pytest.raises(InputError, match="input `h` is missing"):
        bench(folder, tier="t2", runs=2, inputs={"x": np.zeros((2, 8), np.float32)})


def test_no_such_tier_or_none_with_work(folder: Path) -> None:
    with pytest.raises(InputError, match="no tier `moon`") as caught:
        bench(folder, tier="moon")
    assert caught.value.hint == "the tiers are `t0`, `t1`, `t2`"
    with pytest.raises(InputError, match="tier `t1` has no work"):
        bench(folder, tier="t1")


def test_without_the_whole_model_a_note_says_so(folder: Path, model: Path) -> None:
    model.unlink()
    report = bench(folder, runs=2)
    assert report.chain is not None
    assert report.whole is None
    assert "the whole model was not measured" in report.notes[0]
    with pytest.raises(ManifestError):
        bench(folder, runs=2, model=model)  # named, so it must be there


def test_a_changed_slice_is_refused(folder: Path) -> None:
    edit_slice(folder, "t0", scale_weight)
    with pytest.raises(ManifestError, match="checksum differs"):
        bench(folder, runs=2)


def test_a_cuda_figure_never_comes_from_the_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not HAS_CUDA_BUILD:
        with pytest.raises(MissingExtraError):
            bench(folder, provider="cuda", runs=2)
    without_gpu(monkeypatch)
    with pytest.raises(MissingExtraError, match="fell back"):
        bench(folder, provider="cuda", runs=2)


def test_made_up_inputs_that_do_not_suit_are_blamed(model_text: Write) -> None:
    body = "n (float[1, 3] x, int64[20] i) => (float[20, 3] y) { a = Tanh(x) y = Gather(a, i) }"
    folder = split(model_text(body), 1)
    with pytest.raises(ModelError, match="slice `t1` fails") as caught:
        bench(folder, runs=2)
    assert "--input" in (caught.value.hint or "")


def test_the_command_takes_the_inputs_that_its_errors_ask_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "x.npz", h=np.zeros((2, 6), np.float32))
    words = ["bench", str(folder), "--tier", "t2", "--runs", "2", "--json"]
    assert main([*words, "--input", str(tmp_path / "x.npz")]) == 0
    assert json.loads(capsys.readouterr().out)["inputs"] == str(tmp_path / "x.npz")
    assert main([*words, "--input", str(tmp_path / "none.npz")]) == 2
