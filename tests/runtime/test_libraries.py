"""Shared libraries, read and looked for; the files here are real, CUDA's are made up."""

from __future__ import annotations

import ctypes
import shutil
import sys
from pathlib import Path

import onnxruntime
import pytest

from dnnsplit_onnx.runtime import driver, libraries
from dnnsplit_onnx.runtime.driver import Driver, find_driver
from dnnsplit_onnx.runtime.libraries import cuda_build, needed

_REAL = next(Path(onnxruntime.__file__).parent.glob("capi/onnxruntime_pybind11_state*.so"))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ELF files are those of Linux")


def test_what_a_real_library_is_linked_against() -> None:
    assert "libc.so.6" in needed(_REAL)
    assert all(name.startswith(("lib", "ld-")) for name in needed(_REAL))


@pytest.mark.parametrize("content", [b"", b"MZ", b"\x7fELF", b"\x7fELF\x01\x01" + bytes(80), b"x" * 100])
def test_of_other_files_nothing_is_known(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(content)
    assert needed(path) == []


@pytest.fixture
def gpu_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An onnxruntime with a provider for CUDA 13, and a folder of libraries beside it."""
    capi = tmp_path / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    (capi / "libonnxruntime_providers_cuda.so").write_bytes(b"")
    (capi / "build_and_package_info.py").write_text("package_name = 'x'\ncuda_version = '13.0'\n")
    monkeypatch.setattr(libraries, "_capi", lambda: capi)
    linked = ["libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcuda.so.1", "libstdc++.so.6"]
    monkeypatch.setattr(libraries, "needed", lambda _: linked)
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
        ("libcuda.so.1", False),
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


class FakeCuda:
    """libcuda, as its header has it: everything through pointers, 0 for success."""

    def __init__(self, init: int = 0, release: int = 13010, names: tuple[str, ...] = ("NVIDIA X1",)) -> None:
        self.init, self.release, self.names = init, release, names

    def cuInit(self, _flags: int) -> int:  # noqa: N802
        return self.init

    def cuDriverGetVersion(self, out: ctypes.c_void_p) -> int:  # noqa: N802
        ctypes.cast(out, ctypes.POINTER(ctypes.c_int))[0] = self.release
        return 0

    def cuDeviceGetCount(self, out: ctypes.c_void_p) -> int:  # noqa: N802
        ctypes.cast(out, ctypes.POINTER(ctypes.c_int))[0] = len(self.names)
        return 0

    def cuDeviceGet(self, out: ctypes.c_void_p, at: int) -> int:  # noqa: N802
        ctypes.cast(out, ctypes.POINTER(ctypes.c_int))[0] = at
        return 0

    def cuDeviceGetName(self, out: ctypes.Array[ctypes.c_char], _size: int, handle: ctypes.c_int) -> int:  # noqa: N802
        out.value = self.names[handle.value].encode()
        return 0

    def cuDeviceTotalMem_v2(self, out: ctypes.c_void_p, _handle: ctypes.c_int) -> int:  # noqa: N802
        ctypes.cast(out, ctypes.POINTER(ctypes.c_size_t))[0] = 8 << 30
        return 0

    def cuGetErrorString(self, _code: int, out: ctypes.c_void_p) -> int:  # noqa: N802
        ctypes.cast(out, ctypes.POINTER(ctypes.c_char_p))[0] = b"no CUDA-capable device is detected"
        return 0


def driver_with(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> Driver:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: cuda)
    monkeypatch.setattr(driver.shutil, "which", lambda _: None)
    return find_driver()


def test_a_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    found = find_driver()
    assert (found.cuda_major, found.devices) == (0, ())
    assert "libcuda.so.1" in (found.error or "")


def test_a_driver_tells_its_release_and_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    found = driver_with(monkeypatch, FakeCuda())
    assert (found.cuda, found.cuda_major, found.error) == ("13.1", 13, None)
    assert [(device.name, device.memory_nbytes) for device in found.devices] == [("NVIDIA X1", 8 << 30)]


def test_a_driver_without_a_gpu_or_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert driver_with(monkeypatch, FakeCuda(names=())).error == "the driver finds no GPU"
    assert driver_with(monkeypatch, FakeCuda(init=100)).error == (
        "the driver does not start: no CUDA-capable device is detected (100)"
    )


@pytest.mark.parametrize(
    ("script", "version"), [("echo 580.65.06", "580.65.06"), ("echo broken >&2; exit 9", None)]
)
def test_the_drivers_own_version_comes_from_its_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, version: str | None
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeCuda())
    monkeypatch.setattr(driver.shutil, "which", lambda _: str(tool))
    assert find_driver().version == version
