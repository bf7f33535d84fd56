"""What this machine has for running models, what is missing, and what to do about it.

Nothing here raises for a machine that is in a bad way, and CUDA is tried in a process of its
own: a library that is broken may take its process with it.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from dnnsplit_onnx._version import __version__
from dnnsplit_onnx.errors import DnnsplitError
from dnnsplit_onnx.runtime.driver import PACKAGE as DRIVER_PACKAGE
from dnnsplit_onnx.runtime.driver import Driver, find_driver
from dnnsplit_onnx.runtime.extras import Extra, failure_of, find_extras
from dnnsplit_onnx.runtime.libraries import CudaBuild, cuda_build
from dnnsplit_onnx.runtime.provider import INSTALL_CPU, INSTALL_GPU, PROVIDERS, installed_runtimes, runtime

_CORE = ("onnx", "numpy", "networkx", "typer", "rich", "pydantic", "ml_dtypes")
_GPU = "onnxruntime-gpu"
# The oldest driver for each major release of CUDA, by NVIDIA's notes on compatibility.
_DRIVERS = {12: 525, 13: 580}
_FIRST_CUDA_13 = "1.27"
_KEEP_TO_CPU = f"keep to the CPU: pip uninstall -y {_GPU} && {INSTALL_CPU}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is installed and does not work.

    Attributes:
        what: One sentence, without a full stop.
        hint: What to do, or None.
    """

    what: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Runtime:
    """The onnxruntime that is installed.

    Attributes:
        distributions: The installed distributions of it, and their versions; more than one
            is a conflict.
        version: What the module says; None if it cannot be imported.
        providers: What it is built with, as it calls them.
        usable: Of the providers that it is built with, those that a small model really ran on.
        error: Why it cannot be used, or None.
        hint: What to do about that.
        cuda_error: Why the small model did not run on CUDA; None if it did, or was not tried.
    """

    distributions: dict[str, str]
    version: str | None = None
    providers: tuple[str, ...] = ()
    usable: tuple[str, ...] = ()
    error: str | None = None
    hint: str | None = None
    cuda_error: str | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `doctor` finds.

    Attributes:
        runtime: The onnxruntime.
        build: What its CUDA provider needs; None for a build without it.
        driver: NVIDIA's driver.
        extras: The optional parts of this package.
        problems: What is installed and broken; nothing if all that is here works.
        advice: What could be had, each a sentence.
    """

    runtime: Runtime
    build: CudaBuild | None
    driver: Driver
    extras: tuple[Extra, ...]
    problems: tuple[Problem, ...]
    advice: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether all that is installed works."""
        return not self.problems

    def records(self) -> list[dict[str, Any]]:
        """A row for each package, provider, extra and problem."""
        rows = [{"kind": "package", "name": name, "state": version} for name, version in _versions()]
        rows += [{"kind": "provider", "name": name, "state": "works"} for name in self.runtime.usable]
        rows += [
            {"kind": "extra", "name": extra.name, "state": "installed" if extra.installed else "missing"}
            for extra in self.extras
        ]
        rows += [{"kind": "problem", "name": one.what, "state": one.hint or ""} for one in self.problems]
        return rows

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        build = self.build
        return {
            "healthy": self.healthy,
            "problems": [asdict(problem) for problem in self.problems],
            "advice": list(self.advice),
            "dnnsplit_onnx": __version__,
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            "packages": dict(_versions()),
            "onnxruntime": asdict(self.runtime),
            "cuda": {
                "usable": "cuda" in self.runtime.usable,
                "required": None if build is None else {"cuda": build.cuda, "cudnn": str(build.cudnn)},
                "libraries": [] if build is None else [asdict(library) for library in build.libraries],
                "driver": asdict(self.driver),
            },
            "extras": [extra.to_dict() for extra in self.extras],
        }


def diagnose(*, deep: bool = False) -> Diagnosis:
    """Looks at everything.

    Args:
        deep: Whether to import what each installed extra needs, which may take a minute.
    """
    build, driver = cuda_build(), find_driver()
    found, extras = _find_runtime(build), find_extras(deep=deep)
    problems = (*_of_runtime(found, build), *_of_cuda(found, build, driver), *_of_extras(extras))
    return Diagnosis(found, build, driver, extras, problems, tuple(_advice(found, build, driver)))


def _versions() -> Iterator[tuple[str, str | None]]:
    for name in _CORE:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, None


def _find_runtime(build: CudaBuild | None) -> Runtime:
    installed = installed_runtimes()
    try:
        module = runtime()
    except DnnsplitError as error:
        return Runtime(installed, error=error.message, hint=error.hint)
    cpu = _try("cpu")
    cuda = None if build is None else _try("cuda")
    available = tuple(module.get_available_providers())
    others = [name for name, of in PROVIDERS.items() if of in available and name not in ("cpu", "cuda")]
    usable = [*(["cpu"] if cpu is None else []), *(["cuda"] if build is not None and cuda is None else [])]
    return Runtime(
        installed,
        module.__version__,
        available,
        (*usable, *(name for name in others if _try(name) is None)),
        error=cpu,
        cuda_error=cuda,
    )


def _try(provider: str) -> str | None:
    """Runs a small model on a provider.

    Returns:
        Why it failed, or None if it ran.
    """
    return failure_of(["-m", "dnnsplit_onnx.runtime.probe", provider], f"a small model on `{provider}`")


def _of_runtime(found: Runtime, build: CudaBuild | None) -> Iterator[Problem]:
    # Without any onnxruntime, planning and slicing work all the same.
    if found.error is not None and found.distributions:
        yield Problem(found.error, found.hint)
    elif build is None and list(found.distributions) == [_GPU]:
        yield Problem(
            f"{_GPU} is installed, and its CUDA provider is not there",
            f"pip install --force-reinstall {_GPU}",
        )


def _of_cuda(found: Runtime, build: CudaBuild | None, driver: Driver) -> Iterator[Problem]:
    """Why a build for CUDA does not run on it."""
    if build is None or "cuda" in found.usable or found.error is not None:
        return
    major = build.cuda_major
    least = f"{_DRIVERS[major]} or newer" if major in _DRIVERS else f"one that runs CUDA {major}"
    known = False
    if not driver.is_asked:
        yield Problem(f"{_GPU} is installed, and {driver.error}", f"pip install {DRIVER_PACKAGE}")
    elif driver.error is not None:
        known = True
        yield Problem(
            f"{_GPU} is installed, and {driver.error}",
            f"install NVIDIA's driver, {least}; or {_KEEP_TO_CPU}",
        )
    elif driver.cuda_major < major:
        known = True
        older = f"; or take a build for CUDA 12: pip install '{_GPU}<{_FIRST_CUDA_13}'" if major == 13 else ""
        yield Problem(
            f"the driver runs CUDA up to {driver.cuda}, and this {_GPU} is built for CUDA {major}",
            f"update NVIDIA's driver to {least}{older}",
        )
    missing = [library.name for library in build.libraries if library.path is None and not library.optional]
    if missing:
        known = True
        yield Problem(
            f"shared libraries are missing: {', '.join(missing)}", f"pip can bring them: {INSTALL_GPU}"
        )
    for library in build.libraries:
        if library.error is not None and (driver.error is None or not driver.is_asked):
            known = True
            yield Problem(f"`{library.path or library.name}` cannot be loaded: {library.error}")
    if not known:
        yield Problem(f"CUDA does not work: {found.cuda_error}")


def _of_extras(extras: tuple[Extra, ...]) -> Iterator[Problem]:
    for extra in extras:
        if extra.error is not None:
            yield Problem(f"extra `{extra.name}` is installed and broken: {extra.error}", extra.install)


def _advice(found: Runtime, build: CudaBuild | None, driver: Driver) -> Iterator[str]:
    if not found.distributions:
        yield f"to run models, and to verify slices, install onnxruntime: {INSTALL_CPU}, or {INSTALL_GPU}"
    elif build is None and driver.devices:
        names = ", ".join(device.name for device in driver.devices)
        yield (
            f"this machine has a GPU ({names}), and onnxruntime is built without CUDA: "
            f"pip uninstall -y {' '.join(found.distributions)} && {INSTALL_GPU}"
        )
    elif build is not None and "cuda" in found.usable:
        absent = [library.name for library in build.libraries if library.path is None]
        if absent:
            yield f"CUDA works; a few operators need {', '.join(absent)}: {INSTALL_GPU}"
