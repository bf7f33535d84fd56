"""The shared libraries that onnxruntime's CUDA provider needs, and which of them are there.

Which they are follows from the release of CUDA that the provider was built for; looked at for
onnxruntime-gpu 1.21 to 1.31. onnxruntime's own `preload_dlls` loads what pip brought, and says
what it could not find on the standard output alone.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_PROVIDER = "libonnxruntime_providers_cuda.so"
_BUILD = "build_and_package_info.py"
_CUDNN = 9  # since onnxruntime 1.19, which is older than any that is supported
_CURAND = 10  # for CUDA 12 and 13


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library that CUDA sessions need.

    Attributes:
        name: Such as `libcublas.so.13`.
        path: Where it was found: a file, or its name if the system's loader found it; None
            if it is missing.
        optional: Whether only some models need it.
        error: Why it cannot be loaded, where it was found and cannot.
    """

    name: str
    path: str | None
    optional: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class CudaBuild:
    """What a GPU build of onnxruntime is made for.

    Attributes:
        cuda: The release of CUDA, such as `13.0`.
        cudnn: The major release of cuDNN.
        libraries: What it needs.
    """

    cuda: str
    cudnn: int
    libraries: tuple[Library, ...]

    @property
    def cuda_major(self) -> int:
        """The number that must be the same."""
        return int(self.cuda.partition(".")[0])


def cuda_build() -> CudaBuild | None:
    """What the installed onnxruntime needs for CUDA; None if it is not built for it.

    onnxruntime itself is not imported: it may be what is broken.
    """
    folder = _capi()
    if folder is None or not (folder / _PROVIDER).is_file():
        return None
    cuda = _built_for(folder)
    if cuda is None:
        return None
    major = int(cuda.partition(".")[0])
    # cuBLAS needs cuBLASLt and finds it if it is loaded already.
    linked = [f"lib{name}.so.{major}" for name in ("cublasLt", "cublas", "cudart")]
    linked += [f"libcurand.so.{_CURAND}", f"libcudnn.so.{_CUDNN}"]
    later = [f"libcufft.so.{major - 1}", f"libnvrtc.so.{major}"]
    wanted = [(name, False) for name in linked] + [(name, True) for name in later]
    roots = list(_pip_folders(folder))
    return CudaBuild(cuda, _CUDNN, tuple(_find(name, optional, roots) for name, optional in wanted))


def _capi() -> Path | None:
    """The folder of onnxruntime's shared libraries."""
    spec = find_spec("onnxruntime")
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) / "capi" if places else None


def _built_for(folder: Path) -> str | None:
    """The release of CUDA that a build names."""
    try:
        lines = (folder / _BUILD).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "cuda_version":
            found = value.strip().strip("'\"")
            return found if found.partition(".")[0].isdecimal() else None
    return None


def _pip_folders(capi: Path) -> Iterator[Path]:
    """Where packages of NVIDIA's put their libraries: beside onnxruntime, and on the path."""
    roots = dict.fromkeys([capi.parent.parent, *(Path(entry) for entry in sys.path if entry)])
    for root in roots:
        yield from sorted((root / "nvidia").glob("*/lib"))


def _find(name: str, optional: bool, folders: list[Path]) -> Library:
    """Looks for a library where onnxruntime does, and loads it."""
    for folder in folders:
        if (path := folder / name).is_file():
            error = _load(str(path))
            return Library(name, str(path), optional, error)
    error = _load(name)
    if error is None:
        return Library(name, name, optional)
    is_missing = "cannot open shared object file" in error and error.startswith(name)
    return Library(name, None, optional, None if is_missing else error)


def _load(name: str) -> str | None:
    """Why a library cannot be loaded, None if it can. It stays loaded, for those that need it."""
    try:
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return None
