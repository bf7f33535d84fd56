"""NVIDIA's driver and devices, as NVIDIA's own package `nvidia-ml-py` tells them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

#: What asks the driver; the extra `gpu` brings it.
PACKAGE = "nvidia-ml-py"


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU: its name, and its memory in bytes."""

    name: str
    memory_nbytes: int


@dataclass(frozen=True, slots=True)
class Driver:
    """NVIDIA's driver.

    Attributes:
        version: Of the driver, such as `580.65.06`.
        cuda: The newest release of CUDA that it runs, such as `13.0`; None without a driver.
        devices: The GPUs.
        error: What is wrong with it, None if nothing is.
        is_asked: Whether the package that asks it is installed.
    """

    version: str | None = None
    cuda: str | None = None
    devices: tuple[Device, ...] = ()
    error: str | None = None
    is_asked: bool = True

    @property
    def cuda_major(self) -> int:
        """The major release of CUDA; 0 without a driver."""
        return int(self.cuda.partition(".")[0]) if self.cuda else 0


def find_driver() -> Driver:
    """The driver of this machine; whatever goes wrong is said in it, never raised."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return Driver(error=f"`{PACKAGE}`, which asks the driver, is not", is_asked=False)
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return Driver(error=f"there is no driver that works: {error}")
    try:
        number = nvml.nvmlSystemGetCudaDriverVersion()
        handles = [nvml.nvmlDeviceGetHandleByIndex(at) for at in range(nvml.nvmlDeviceGetCount())]
        devices = tuple(
            Device(nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetMemoryInfo(handle).total)
            for handle in handles
        )
        return Driver(
            nvml.nvmlSystemGetDriverVersion(),
            f"{number // 1000}.{number % 1000 // 10}",
            devices,
            None if devices else "the driver finds no GPU",
        )
    except nvml.NVMLError as error:
        return Driver(error=f"the driver does not tell what there is: {error}")
    finally:
        nvml.nvmlShutdown()
