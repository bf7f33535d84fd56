"""What is said of machines in different states of repair."""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

import pytest

from dnnsplit_onnx.errors import MissingExtraError, ModelError
from dnnsplit_onnx.runtime import doctor, extras, probe
from dnnsplit_onnx.runtime.doctor import Diagnosis, diagnose
from dnnsplit_onnx.runtime.driver import Device, Driver
from dnnsplit_onnx.runtime.extras import find_extras
from dnnsplit_onnx.runtime.libraries import CudaBuild, Library
from tests.cli.conftest import Run, run  # noqa: F401
from tests.providers import HAS_CUDA_BUILD, pretend_cuda, without_gpu

PRESENT = (Library("libcudart.so.13", "/lib/libcudart.so.13"), Library("libcudnn.so.9", "libcudnn.so.9"))
GOOD_DRIVER = Driver("580.1", "13.0", (Device("NVIDIA X1", 8 << 30),))
KEEP_TO_CPU = "pip uninstall -y onnxruntime-gpu && pip install 'dnnsplit-onnx[cpu]'"


def machine(
    monkeypatch: pytest.MonkeyPatch,
    *,
    installed: dict[str, str] | None = None,
    libraries: tuple[Library, ...] | None = PRESENT,
    driver: Driver = GOOD_DRIVER,
    cuda: str | None = None,
) -> Diagnosis:
    """The diagnosis of a machine; `cuda` is why a small model fails there."""
    build = None if libraries is None else CudaBuild("13.0", 9, libraries)
    monkeypatch.setattr(doctor, "cuda_build", lambda: build)
    monkeypatch.setattr(doctor, "find_driver", lambda: driver)
    monkeypatch.setattr(doctor, "_try", lambda provider: cuda if provider == "cuda" else None)
    found = {"onnxruntime-gpu": "1.31.1"} if installed is None else installed
    monkeypatch.setattr(doctor, "installed_runtimes", lambda: found)
    return diagnose()


def test_cuda_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine(monkeypatch)
    assert found.healthy
    assert found.runtime.usable == ("cpu", "cuda")
    assert found.advice == ()
    assert found.to_dict()["cuda"]["usable"] is True


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine(monkeypatch, driver=Driver(error="there is no driver"), cuda="fell back")
    (problem,) = found.problems
    assert problem.what == "onnxruntime-gpu is installed, and there is no driver"
    assert "580 or newer" in (problem.hint or "")
    assert KEEP_TO_CPU in (problem.hint or "")


def test_a_driver_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = Driver(error="`nvidia-ml-py`, which asks the driver, is not", is_asked=False)
    asked, failing = machine(monkeypatch, driver=unknown, cuda="fell back").problems
    assert asked.what == "onnxruntime-gpu is installed, and `nvidia-ml-py`, which asks the driver, is not"
    assert asked.hint == "pip install nvidia-ml-py"
    assert failing.what == "CUDA does not work: fell back"


def test_a_driver_too_old_for_this_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Driver("550.1", "12.4", GOOD_DRIVER.devices)
    (problem,) = machine(monkeypatch, driver=old, cuda="fell back").problems
    assert problem.what == "the driver runs CUDA up to 12.4, and this onnxruntime-gpu is built for CUDA 13"
    assert "pip install 'onnxruntime-gpu<1.27'" in (problem.hint or "")


def test_missing_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = (
        Library("libcublas.so.13", None),
        Library("libcudnn.so.9", None),
        Library("libcufft.so.12", None, optional=True),
    )
    (problem,) = machine(monkeypatch, libraries=libraries, cuda="fell back").problems
    assert problem.what == "shared libraries are missing: libcublas.so.13, libcudnn.so.9"
    assert problem.hint == "pip can bring them: pip install 'dnnsplit-onnx[gpu]'"


def test_a_library_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = (Library("libcudnn.so.9", "/x/libcudnn.so.9", error="file too short"),)
    (problem,) = machine(monkeypatch, libraries=libraries, cuda="fell back").problems
    assert problem.what == "`/x/libcudnn.so.9` cannot be loaded: file too short"


def test_what_nothing_explains_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    (problem,) = machine(monkeypatch, cuda="an illegal memory access").problems
    assert problem.what == "CUDA does not work: an illegal memory access"


def test_a_build_without_cuda_beside_a_gpu_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine(monkeypatch, libraries=None, installed={"onnxruntime": "1.31.1"})
    assert found.healthy
    (advice,) = found.advice
    assert "has a GPU (NVIDIA X1)" in advice
    assert "pip uninstall -y onnxruntime && pip install 'dnnsplit-onnx[gpu]'" in advice


def test_a_gpu_package_without_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    (problem,) = machine(monkeypatch, libraries=None).problems
    assert problem.what == "onnxruntime-gpu is installed, and its CUDA provider is not there"


def test_a_few_operators_may_miss_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = (*PRESENT, Library("libcufft.so.12", None, optional=True))
    found = machine(monkeypatch, libraries=libraries)
    assert found.healthy
    assert "libcufft.so.12" in found.advice[0]


def broken_runtime(monkeypatch: pytest.MonkeyPatch, installed: dict[str, str]) -> Diagnosis:
    def fail() -> None:
        raise MissingExtraError("both are installed", hint="keep one")

    monkeypatch.setattr(doctor, "runtime", fail)
    return machine(monkeypatch, installed=installed, libraries=None, driver=Driver(error="none"))


def test_two_runtimes_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}
    found = broken_runtime(monkeypatch, both)
    assert [(problem.what, problem.hint) for problem in found.problems] == [
        ("both are installed", "keep one")
    ]
    assert found.to_dict()["onnxruntime"]["distributions"] == both


def test_no_runtime_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = broken_runtime(monkeypatch, {})
    assert found.healthy
    assert "pip install 'dnnsplit-onnx[cpu]'" in found.advice[0]


REQUIRES = [
    "onnx>=1.18",
    'onnxruntime>=1.20; extra == "cpu"',
    'onnxruntime-gpu[cuda,cudnn]>=1.21; extra == "gpu"',
    'numpy>=999; extra == "new"',
    'onnx >=1.0 ; python_version >= "3.11" and extra == "met"',
    'no-such-thing; extra == "gone"',
]


def test_extras_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: REQUIRES)
    monkeypatch.setattr(extras, "installed_runtimes", lambda: {"onnxruntime": "1.31.1"})
    versions = {"onnxruntime": "1.31.1", "numpy": "2.4.6", "onnx": "1.23.2+local"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    found = {extra.name: extra for extra in find_extras()}
    assert list(found) == ["cpu", "gpu", "new", "met", "gone"]
    assert [extra.installed for extra in found.values()] == [True, False, False, True, False]
    assert found["new"].missing == ("numpy>=999 (2.4.6 is installed)",)
    assert found["gone"].missing == ("no-such-thing",)
    # The two runtimes break each other, so that one has to go first.
    assert found["gpu"].install == "pip uninstall -y onnxruntime && pip install 'dnnsplit-onnx[gpu]'"
    assert found["new"].install == "pip install 'dnnsplit-onnx[new]'"


def test_a_package_that_is_not_installed_has_no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", fail)
    assert find_extras() == ()


def test_deep_imports_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ['numpy; extra == "good"', 'pytest; extra == "bad"', 'no-such-thing; extra == "absent"']
    monkeypatch.setattr(metadata, "requires", lambda _: lines)
    monkeypatch.setitem(extras._MODULES, "pytest", "no_module_of_that_name")
    found = {extra.name: extra for extra in find_extras(deep=True)}
    assert found["good"].error is None
    assert "no_module_of_that_name" in (found["bad"].error or "")
    assert found["absent"].error is None
    assert {extra.error for extra in find_extras()} == {None}
    assert [problem.what[:35] for problem in doctor._of_extras(tuple(found.values()))] == [
        "extra `bad` is installed and broken"
    ]


def test_the_small_model_runs_here() -> None:
    probe.run_probe("cpu")


def test_the_small_model_fails_where_sessions_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    with pytest.raises(MissingExtraError, match="fell back"):
        probe.run_probe("cuda")


def test_the_small_model_is_held_against_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch)
    probe.run_probe("cuda")
    monkeypatch.setattr(probe.np, "allclose", lambda *_, **__: False)
    with pytest.raises(ModelError, match="computes something else"):
        probe.run_probe("cuda")


@pytest.mark.skipif(HAS_CUDA_BUILD, reason="this onnxruntime has CUDA, which may not work")
class TestCommand:
    def test_this_machine(self, run: Run) -> None:  # noqa: F811
        ended = run("doctor", "--json")
        found: dict[str, Any] = ended.json
        assert ended.code == 0
        assert found["healthy"] is True
        assert found["onnxruntime"]["usable"] == ["cpu"]
        assert found["cuda"]["required"] is None
        assert {extra["name"] for extra in found["extras"]} >= {"cpu", "gpu", "plot"}
        text = run("doctor").out
        assert "a small model ran on cpu" in text
        assert "All that is installed works." in text

    def test_what_is_broken_ends_with_1(
        self,
        run: Run,  # noqa: F811
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        libraries = (Library("libcudnn.so.9", None), Library("libcuda.so.1", "libcuda.so.1"))
        broken = machine(monkeypatch, libraries=libraries, cuda="fell back")
        monkeypatch.setattr(doctor, "diagnose", lambda **_: broken)
        ended = run("doctor")
        assert ended.code == 1
        assert "built for CUDA 13.0 and cuDNN 9" in ended.out
        assert "problem: shared libraries are missing: libcudnn.so.9" in ended.out
        assert "NVIDIA X1" in ended.out
        assert json.loads(run("doctor", "--json").out)["problems"]
