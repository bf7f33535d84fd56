"""Shared libraries that are looked for, and a driver that is asked; CUDA's are made up."""

from __future__ import annotations

import ctypes
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from dnnsplit_onnx.runtime import libraries
from dnnsplit_onnx.runtime.driver import Driver, find_driver
from dnnsplit_onnx.runtime.libraries import cuda_build

_REAL = next(Path(onnxruntime.__file__).parent.glob("capi/onnxruntime_pybind11_state*.so"))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ELF files are those of Linux")


@pytest.fixture
def gpu_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An onnxruntime with a provider for CUDA 13, and a folder of libraries beside it."""
    capi = tmp_path / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    (capi / "libonnxruntime_providers_cuda.so").write_bytes(b"")
    (capi / "build_and_package_info.py").write_text("package_name = 'x'\ncuda_version = '13.0'\n")
    monkeypatch.setattr(libraries, "_capi", lambda: capi)
    monkeypatch.setattr(sys, "path", [])
    return tmp_path


def no_library(name: str, mode: int = 0) -> None:
    raise OSError(f"{name}: cannot open shared object file: No such file or directory")


def test_missing_libraries_are_named(gpu_build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    build = cuda_build()
    assert build is not None
    assert (build.cuda, build.cuda_major, build.cudnn) == ("13.0", 13, 9)
    assert {(library.name, library.optional) for library in build.libraries} == {
        ("libcublasLt.so.13", False),
        ("libcublas.so.13", False),
        ("libcudart.so.13", False),
        ("libcurand.so.10", False),
        ("libcudnn.so.9", False),
        ("libcufft.so.12", True),
        ("libnvrtc.so.13", True),
    }
    assert all((library.path, library.error) == (None, None) for library in build.libraries)
    # cuBLAS finds the other only if it is loaded.
    assert build.libraries[0].name == "libcublasLt.so.13"


def test_libraries_are_found_where_pip_puts_them(gpu_build: Path) -> None:
    folder = gpu_build / "nvidia" / "cu13" / "lib"
    folder.mkdir(parents=True)
    shutil.copy(_REAL.with_name("libonnxruntime_providers_shared.so"), folder / "libcudart.so.13")
    (folder / "libcublas.so.13").write_bytes(b"not a library")
    build = cuda_build()
    assert build is not None
    found = {library.name: library for library in build.libraries}
    assert found["libcudart.so.13"].path == str(folder / "libcudart.so.13")
    assert found["libcudart.so.13"].error is None
    assert found["libcublas.so.13"].path == str(folder / "libcublas.so.13")
    assert found["libcublas.so.13"].error


def test_a_build_for_the_cpu_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_capi", lambda: tmp_path)
    assert cuda_build() is None
    monkeypatch.setattr(libraries, "_capi", lambda: None)
    assert cuda_build() is None


class FakeNvml:
    """The module `pynvml`, as NVIDIA's package has it."""

    class NVMLError(Exception):
        """As the package raises it."""

    def __init__(self, names: tuple[str, ...] = ("NVIDIA X1",), failing: str = "") -> None:
        self.names, self.failing, self.is_open = names, failing, False

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlInit": lambda: setattr(self, "is_open", True),
            "nvmlShutdown": lambda: setattr(self, "is_open", False),
            "nvmlSystemGetCudaDriverVersion": lambda: 13010,
            "nvmlSystemGetDriverVersion": lambda: "580.65.06",
            "nvmlDeviceGetCount": lambda: len(self.names),
            "nvmlDeviceGetHandleByIndex": lambda at: at,
            "nvmlDeviceGetName": lambda handle: self.names[handle],
            "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=8 << 30),
        }
        if name == self.failing:
            return self._fail
        if name not in answers:
            raise AttributeError(name)
        return answers[name]

    def _fail(self, *_: object) -> None:
        raise self.NVMLError("Driver Not Loaded")


def driver_with(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml | None) -> Driver:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = find_driver()
    assert nvml is None or not nvml.is_open
    return found


def test_a_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    found = driver_with(monkeypatch, FakeNvml(failing="nvmlInit"))
    assert (found.cuda_major, found.devices) == (0, ())
    assert found.error == "there is no driver that works: Driver Not Loaded"


def test_an_environment_that_cannot_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    found = driver_with(monkeypatch, None)
    assert not found.is_asked
    assert "nvidia-ml-py" in (found.error or "")


def test_a_driver_tells_its_release_and_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    found = driver_with(monkeypatch, FakeNvml())
    assert (found.version, found.cuda, found.cuda_major, found.error) == ("580.65.06", "13.1", 13, None)
    assert [(device.name, device.memory_nbytes) for device in found.devices] == [("NVIDIA X1", 8 << 30)]


def test_a_driver_without_a_gpu_or_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert driver_with(monkeypatch, FakeNvml(names=())).error == "the driver finds no GPU"
    failing = driver_with(monkeypatch, FakeNvml(failing="nvmlDeviceGetName"))
    assert failing.error == "the driver does not tell what there is: Driver Not Loaded"
