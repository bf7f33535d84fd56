import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest

from dnnsplit_onnx import Link, Tier, Topology, analyse, plan, slice_model, verify
from dnnsplit_onnx.errors import InputError, MissingExtraError
from dnnsplit_onnx.models import write_model
from dnnsplit_onnx.running.slices import options_on
from dnnsplit_onnx.runtime import provider
from dnnsplit_onnx.runtime.options import TIER, SessionOptions


def install(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Makes these the installed distributions; `_` stands for `-`."""
    found = {name.replace("_", "-"): version for name, version in versions.items()}

    def version(name: str) -> str:
        if name not in found:
            raise metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(metadata, "version", version)


def test_finds_the_one_that_is_installed() -> None:
    assert hasattr(provider.runtime(), "InferenceSession")
    assert list(provider.installed_runtimes()) in (["onnxruntime"], ["onnxruntime-gpu"])


def test_what_is_installed_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = provider.runtime()
    monkeypatch.setattr(metadata, "version", lambda _: pytest.fail("it is looked at again"))
    assert provider.runtime() is found
    install(monkeypatch)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what was found is not there any more
    with pytest.raises(MissingExtraError):
        provider.runtime()


def test_none_installed_prints_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # importing it fails
    with pytest.raises(MissingExtraError, match="not installed") as caught:
        provider.runtime()
    assert caught.value.hint == "pip install 'dnnsplit-onnx[cpu]'"


def test_two_installed_stops_before_importing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime="1.31.1", onnxruntime_gpu="1.30.0")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        MissingExtraError, match="`onnxruntime` and `onnxruntime-gpu` are both installed"
    ) as caught:
        provider.runtime()
    hint = caught.value.hint or ""
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in hint
    assert hint.endswith("pip install 'dnnsplit-onnx[gpu]'")


@pytest.mark.parametrize("versions", [{}, {"onnxruntime_gpu": "1.31.1"}])
def test_what_an_uninstall_left_behind_is_recognised(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]
) -> None:
    install(monkeypatch, **versions)
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(MissingExtraError, match="broken") as caught:
        provider.runtime()
    assert ("onnxruntime-gpu" if versions else "[cpu]") in (caught.value.hint or "")


def test_a_library_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime_gpu="1.31.1")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="cannot be loaded") as caught:
        provider.runtime()
    assert caught.value.hint == "pip install --force-reinstall onnxruntime-gpu"


def fake_runtime(*available: str) -> Any:
    fake = SimpleNamespace(__version__="1.31.1", preloaded=0, get_available_providers=lambda: list(available))
    fake.set_default_logger_severity = lambda level: setattr(fake, "severity", level)

    def preload_dlls() -> None:
        fake.preloaded += 1
        print("Failed to load libcublasLt.so.13")  # as the real one does

    fake.preload_dlls = preload_dlls
    return fake


def test_cpu_loads_nothing_of_cuda() -> None:
    fake = fake_runtime("CUDAExecutionProvider", "CPUExecutionProvider")
    assert provider.provider_list(fake, "cpu") == ["CPUExecutionProvider"]
    assert fake.preloaded == 0


def test_cuda_preloads_its_libraries_and_keeps_the_cpu_for_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake = fake_runtime("CUDAExecutionProvider", "CPUExecutionProvider")
    (name, options), rest = provider.provider_list(fake, "cuda", memory_nbytes=2**30)
    assert fake.preloaded == 1
    assert (name, rest) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["gpu_mem_limit"] == 2**30
    assert options["cudnn_conv_algo_search"] == "EXHAUSTIVE"
    assert "gpu_mem_limit" not in provider.provider_list(fake, "cuda")[0][1]
    assert capsys.readouterr() == ("", "")  # stdout is for data


def test_cuda_graphs_are_asked_for_by_name() -> None:
    fake = fake_runtime("CUDAExecutionProvider", "CPUExecutionProvider")
    assert provider.provider_list(fake, "cuda", cuda_graph=True)[0][1]["enable_cuda_graph"] == "1"
    assert "enable_cuda_graph" not in provider.provider_list(fake, "cuda")[0][1]


def test_cuda_on_a_cpu_build_is_refused() -> None:
    with pytest.raises(MissingExtraError, match=r"built without it") as caught:
        provider.provider_list(fake_runtime("CPUExecutionProvider"), "cuda")
    assert "dnnsplit-onnx[gpu]" in (caught.value.hint or "")


def test_unknown_provider() -> None:
    with pytest.raises(InputError, match="unknown provider `tpu`") as caught:
        provider.provider_list(fake_runtime("CPUExecutionProvider"), "tpu")
    assert caught.value.hint == f"use one of: {', '.join(provider.PROVIDERS)}"


def test_silent_fallback_is_refused() -> None:
    fell_back = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    with pytest.raises(MissingExtraError, match="fell back to CPUExecutionProvider"):
        provider.check_provider(fell_back, "cuda")
    provider.check_provider(fell_back, "cpu")
    both = SimpleNamespace(get_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    provider.check_provider(both, "cuda")


def test_cuda_must_come_first() -> None:
    second = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider", "CUDAExecutionProvider"])
    with pytest.raises(MissingExtraError, match="fell back") as caught:
        provider.check_provider(second, "cuda")
    assert "dnnsplit-onnx doctor" in (caught.value.hint or "")


def test_nodes_that_fell_back_are_listed() -> None:
    def part(ep: str, *nodes: tuple[str, str]) -> Any:
        made = [SimpleNamespace(name=name, op_type=op) for name, op in nodes]
        return SimpleNamespace(ep_name=ep, get_nodes=lambda: made)

    parts = [
        part("CUDAExecutionProvider", ("conv", "Conv")),
        part("CPUExecutionProvider", ("where", "NonZero"), ("", "Shape")),
    ]
    session = SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)
    assert provider.fallback_nodes(session, "cuda") == ("where (NonZero)", "unnamed (Shape)")
    assert provider.fallback_nodes(session, "cpu") == ()
    assert provider.fallback_nodes(SimpleNamespace(), "cuda") is None


def test_importing_the_runtime_package_does_not_import_onnxruntime() -> None:
    modules = "dnnsplit_onnx.measuring.verification, dnnsplit_onnx.measuring.benchmark"
    for extra, loaded in (("", False), ("; import onnxruntime", True)):  # the second: this test can fail
        code = f"import sys, {modules}{extra}; sys.exit('onnxruntime' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == loaded


@pytest.mark.parametrize("name", [one for one in provider.PROVIDERS if one != "cpu"])
def test_every_provider_is_asked_for_with_its_options_and_the_cpu_behind_it(name: str) -> None:
    fake = fake_runtime(provider.PROVIDERS[name], "CPUExecutionProvider")
    first, *rest = provider.provider_list(fake, name, options={"device_type": "NPU", "fast": True, "n": 3})
    assert isinstance(first, tuple)
    assert first[0] == provider.PROVIDERS[name]
    assert first[1].items() >= {"device_type": "NPU", "fast": "1", "n": 3}.items()
    assert rest[-1] == "CPUExecutionProvider"
    assert fake.preloaded == (name in ("cuda", "tensorrt"))


@pytest.mark.parametrize("name", provider.PROVIDERS)
def test_a_provider_that_is_not_built_in_says_where_it_comes_from(name: str) -> None:
    if name == "cpu":
        assert provider.provider_list(fake_runtime("CPUExecutionProvider"), name) == ["CPUExecutionProvider"]
        return
    with pytest.raises(MissingExtraError, match=f"provider `{name}` is asked for") as caught:
        provider.provider_list(fake_runtime("CPUExecutionProvider"), name)
    assert caught.value.hint


def test_slices_run_on_the_provider_of_their_tier_with_its_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # OpenVINO is the CPU under another name here: what is shown is that its options arrive.
    monkeypatch.setitem(provider.PROVIDERS, "openvino", "CPUExecutionProvider")
    write_model("tiny_residual", tmp_path / "m.onnx")
    edge = Tier("edge", gflops=1, provider="openvino", provider_options={"use_arena": "0"})
    machines = Topology(tiers=[edge, Tier("cloud", gflops=2)], links=[Link(bandwidth_mbps=1)])
    work = analyse(tmp_path / "m.onnx", {"batch": 1})
    manifest = slice_model(work, plan(work, machines, cuts=(5,)), tmp_path / "out")
    assert manifest.slices[0].provider_options == {"use_arena": "0"}
    options = options_on(SessionOptions(provider=TIER), manifest.slices[0])
    assert (options.provider, dict(options.provider_options)) == ("openvino", {"use_arena": "0"})
    made: list[Any] = []
    real = ort.InferenceSession

    def create(source: Any, settings: Any = None, providers: Any = (), **given: Any) -> Any:
        made.append(next(iter(providers)))
        return real(source, settings, providers=[providers[0]], **given)

    monkeypatch.setattr(ort, "InferenceSession", create)
    found = verify(tmp_path / "out", provider="tier")
    assert found.passed
    assert ("CPUExecutionProvider", {"use_arena": "0"}) in made
