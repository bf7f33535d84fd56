"""NVIDIA's driver and devices, asked without any library of CUDA."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: What the driver brings.
LIBRARY = "libcuda.so.1"
_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU: its name, and its memory in bytes."""

    name: str
    memory_nbytes: int


@dataclass(frozen=True, slots=True)
class Driver:
    """NVIDIA's driver.

    Attributes:
        version: Of the driver, such as `580.65.06`; None if `nvidia-smi` does not tell.
        cuda: The newest release of CUDA that it runs, such as `13.0`; None without a driver.
        devices: The GPUs.
        error: What is wrong with it, None if nothing is.
    """

    version: str | None = None
    cuda: str | None = None
    devices: tuple[Device, ...] = ()
    error: str | None = None

    @property
    def cuda_major(self) -> int:
        """The major release of CUDA; 0 without a driver."""
        return int(self.cuda.partition(".")[0]) if self.cuda else 0


def find_driver() -> Driver:
    """The driver of this machine; whatever goes wrong is said in it, never raised."""
    try:
        cuda = ctypes.CDLL(LIBRARY)
    except OSError:
        return Driver(error=f"there is no driver: `{LIBRARY}` is not found")
    version, number = _driver_version(), ctypes.c_int(0)
    if (code := cuda.cuInit(0)) != 0:
        return Driver(version, error=f"the driver does not start: {_reason(cuda, code)}")
    if cuda.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return Driver(version, error="the driver does not tell its version")
    release = f"{number.value // 1000}.{number.value % 1000 // 10}"
    devices = tuple(_devices(cuda))
    return Driver(version, release, devices, None if devices else "the driver finds no GPU")


def _devices(cuda: Any) -> Iterator[Device]:
    count = ctypes.c_int(0)
    cuda.cuDeviceGetCount(ctypes.byref(count))
    for at in range(count.value):
        handle, name, nbytes = ctypes.c_int(0), ctypes.create_string_buffer(256), ctypes.c_size_t(0)
        if cuda.cuDeviceGet(ctypes.byref(handle), at) != 0:
            continue
        cuda.cuDeviceGetName(name, len(name), handle)
        cuda.cuDeviceTotalMem_v2(ctypes.byref(nbytes), handle)
        yield Device(name.value.decode("utf-8", "replace"), nbytes.value)


def _reason(cuda: Any, code: int) -> str:
    text = ctypes.c_char_p()
    if cuda.cuGetErrorString(code, ctypes.byref(text)) == 0 and text.value:
        return f"{text.value.decode('utf-8', 'replace')} ({code})"
    return f"error {code}"


def _driver_version() -> str | None:
    """The driver's own version, which libcuda does not tell."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None
