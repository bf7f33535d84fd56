"""Which onnxruntime there is, and which of its execution providers to use.

`onnxruntime` and `onnxruntime-gpu` are two distributions of one module: the one installed
last overwrites the other's files, pip notices nothing, and removing either leaves a folder
that imports and can do nothing. So the installed distributions are looked at before the
module is.

A session that was asked for CUDA and did not get it logs a line and runs on the CPU, many
times slower. Here that is an error.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

from dnnsplit_onnx.errors import InputError, MissingExtraError

#: The providers a tier may name, and what onnxruntime calls them.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "qnn": "QNNExecutionProvider",
}
#: The memory that a provider's values can stay in, as onnxruntime calls it; all others take
#: theirs from the host and give them back there.
DEVICES = {"cuda": "cuda", "tensorrt": "cuda"}

INSTALL_CPU = "pip install 'dnnsplit-onnx[cpu]'"
INSTALL_GPU = "pip install 'dnnsplit-onnx[gpu]'"
# Where a provider comes from, for those that the CPU's distribution is without.
_REPLACE = "pip uninstall -y onnxruntime && "
_INSTALL = {
    "cuda": _REPLACE + INSTALL_GPU,
    "tensorrt": f"{_REPLACE}{INSTALL_GPU}; TensorRT itself is installed apart",
    "openvino": _REPLACE + "pip install onnxruntime-openvino",
    "dml": _REPLACE + "pip install onnxruntime-directml",
    "qnn": _REPLACE + "pip install onnxruntime-qnn",
    "coreml": "onnxruntime has it on macOS alone",
    "xnnpack": "build onnxruntime with --use_xnnpack; its packages for Android have it",
    "rocm": "install AMD's build of onnxruntime",
    "migraphx": "install AMD's build of onnxruntime",
}

_FATAL = 4

# The distributions that own the module `onnxruntime`.
_DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-training",
)


# The module that was found to be right.
_known: dict[str, ModuleType] = {}


def installed_runtimes() -> dict[str, str]:
    """The installed distributions of onnxruntime and their versions, importing none."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def runtime() -> ModuleType:
    """The module `onnxruntime`.

    What is installed is looked at once: each step of a text asks for the module several times.

    Raises:
        MissingExtraError: None is installed, several are, or the one there is broken.
    """
    known = _known.get("onnxruntime")
    if known is not None and sys.modules.get("onnxruntime") is known:
        return known
    found = installed_runtimes()
    if len(found) > 1:
        keep = INSTALL_GPU if "onnxruntime-gpu" in found else INSTALL_CPU
        raise MissingExtraError(
            f"{' and '.join(f'`{name}`' for name in found)} are both installed and overwrite each other",
            hint=f"keep one: pip uninstall -y {' '.join(found)} && {keep}",
        )
    try:
        module = import_module("onnxruntime")
    except ImportError as error:
        if not found:
            raise MissingExtraError("onnxruntime is not installed", hint=INSTALL_CPU) from None
        raise MissingExtraError(f"onnxruntime cannot be loaded: {error}", hint=_reinstall(found)) from None
    if not hasattr(module, "InferenceSession"):
        raise MissingExtraError(
            "onnxruntime is broken: what is left of an uninstalled copy hides it", hint=_reinstall(found)
        )
    _known["onnxruntime"] = module
    return module


def _reinstall(found: dict[str, str]) -> str:
    return f"pip install --force-reinstall {next(iter(found))}" if found else INSTALL_CPU


def provider_list(
    ort: ModuleType,
    provider: str,
    *,
    memory_nbytes: int | None = None,
    cuda_graph: bool = False,
    options: Mapping[str, Any] | None = None,
) -> list[str | tuple[str, dict[str, Any]]]:
    """What to pass as `providers` to a session.

    Args:
        ort: The module `onnxruntime`.
        provider: One of `PROVIDERS`.
        memory_nbytes: Most device memory the session's arena may take.
        cuda_graph: Whether runs are captured as a CUDA graph and replayed.
        options: Options of the provider; they go before those that are made here.

    Raises:
        InputError: There is no such provider.
        MissingExtraError: This onnxruntime was built without it.
    """
    if provider not in PROVIDERS:
        raise InputError(f"unknown provider `{provider}`", hint=f"use one of: {', '.join(PROVIDERS)}")
    name = PROVIDERS[provider]
    if name not in ort.get_available_providers():
        raise MissingExtraError(
            f"provider `{provider}` is asked for, and this onnxruntime {ort.__version__} is built without it",
            hint=_INSTALL[provider],
        )
    given = dict(options or {})
    if provider == "cpu":
        return [(name, _as_text(given))] if given else [name]
    if provider in ("cuda", "tensorrt"):
        load_cuda(ort)
    if provider == "cuda":
        given = _cuda_options(memory_nbytes, cuda_graph) | given
    # Nodes that it has no kernel for need the CPU; `fallback_nodes` lists them.
    rest = [PROVIDERS["cuda"]] if provider == "tensorrt" else []
    return [(name, _as_text(given)), *rest, PROVIDERS["cpu"]]


def _as_text(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as providers read them: truth as 1 or 0, all else as it is."""
    return {key: str(int(value)) if isinstance(value, bool) else value for key, value in options.items()}


def is_on_host(provider: str) -> bool:
    """Whether the values of a provider's sessions lie in the host's memory."""
    return provider not in DEVICES


def can_run(provider: str) -> bool:
    """Whether the onnxruntime here is built with a provider; not whether it works."""
    try:
        return PROVIDERS[provider] in runtime().get_available_providers()
    except MissingExtraError:
        return False


def load_cuda(ort: ModuleType) -> None:
    """Makes the shared libraries of CUDA and cuDNN known to this process, from where pip put them.

    What is missing is no error here: `check_provider` finds out, and `doctor` tells.
    """
    if hasattr(ort, "preload_dlls"):  # since 1.21
        with redirect_stdout(io.StringIO()):  # it prints what it misses, which would spoil --json
            ort.preload_dlls()
    # A session that cannot have CUDA logs so in several lines; here that is one error.
    ort.set_default_logger_severity(_FATAL)


def _cuda_options(memory_nbytes: int | None, cuda_graph: bool) -> dict[str, Any]:
    """Options of the CUDA provider.

    Every convolution is tried with all algorithms when it first meets a shape. That takes
    seconds and is done in the warm-up; what runs afterwards is the fastest.
    """
    options: dict[str, Any] = {"device_id": 0, "cudnn_conv_algo_search": "EXHAUSTIVE"}
    if memory_nbytes is not None:
        # The default strategy doubles the arena and would overrun the limit's purpose.
        options |= {"gpu_mem_limit": memory_nbytes, "arena_extend_strategy": "kSameAsRequested"}
    if cuda_graph:
        options["enable_cuda_graph"] = "1"
    return options


def check_provider(session: Any, provider: str) -> None:
    """Refuses a session that silently runs elsewhere than asked.

    Args:
        session: An onnxruntime session.
        provider: What was asked for, one of `PROVIDERS`.

    Raises:
        MissingExtraError: The session does not have it in first place.
    """
    used = session.get_providers()
    if used[:1] == [PROVIDERS[provider]]:
        return
    raise MissingExtraError(
        f"provider `{provider}` was asked for, and onnxruntime fell back to {', '.join(used)}",
        hint=f"see what is missing: dnnsplit-onnx doctor; to have it: {_INSTALL.get(provider, INSTALL_CPU)}",
    )


def fallback_nodes(session: Any, provider: str) -> tuple[str, ...] | None:
    """The nodes of a session that do not run on the provider that was asked for.

    The session must have been made with `session.record_ep_graph_assignment_info`.

    Returns:
        `name (operator)` for each, in the session's order; None where this version of
        onnxruntime cannot tell.
    """
    if provider == "cpu":
        return ()
    try:
        parts = list(session.get_provider_graph_assignment_info())
    except AttributeError:  # before 1.24
        return None
    return tuple(_nodes_elsewhere(parts, PROVIDERS[provider]))


def _nodes_elsewhere(parts: list[Any], name: str) -> Iterator[str]:
    for part in parts:
        if part.ep_name != name:
            for node in part.get_nodes():
                yield f"{node.name or 'unnamed'} ({node.op_type})"
