"""Which onnxruntime there is, and which of its execution providers to use.

`onnxruntime` and `onnxruntime-gpu` are two distributions of one module: the one installed
last overwrites the other's files, pip notices nothing, and removing either leaves a folder
that imports and can do nothing. So the installed distributions are looked at before the
module is.

A session that was asked for CUDA and did not get it logs a line and runs on the CPU, many
times slower. Here that is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

from dnnsplit_onnx.errors import InputError, MissingExtraError

#: The providers a tier may name, and what onnxruntime calls them.
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

INSTALL_CPU = "pip install 'dnnsplit-onnx[cpu]'"
INSTALL_GPU = "pip install 'dnnsplit-onnx[gpu]'"

# The distributions that own the module `onnxruntime`.
_DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-training",
)


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

    Raises:
        MissingExtraError: None is installed, several are, or the one there is broken.
    """
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
    return module


def _reinstall(found: dict[str, str]) -> str:
    return f"pip install --force-reinstall {next(iter(found))}" if found else INSTALL_CPU


def provider_list(
    ort: ModuleType, provider: str, *, memory_nbytes: int | None = None
) -> list[str | tuple[str, dict[str, Any]]]:
    """What to pass as `providers` to a session.

    Args:
        ort: The module `onnxruntime`.
        provider: `cpu` or `cuda`.
        memory_nbytes: Most device memory the session's arena may take.

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
            hint=f"pip uninstall -y onnxruntime && {INSTALL_GPU}",
        )
    if provider == "cpu":
        return [name]
    if hasattr(ort, "preload_dlls"):  # finds CUDA and cuDNN where pip put them; since 1.21
        ort.preload_dlls()
    options: dict[str, Any] = {"device_id": 0}
    if memory_nbytes is not None:
        # The default strategy doubles the arena and would overrun the limit's purpose.
        options |= {"gpu_mem_limit": memory_nbytes, "arena_extend_strategy": "kSameAsRequested"}
    # Nodes that CUDA has no kernel for need the CPU; `fallback_nodes` lists them.
    return [(name, options), PROVIDERS["cpu"]]


def check_provider(session: Any, provider: str) -> None:
    """Refuses a session that silently runs elsewhere than asked.

    Args:
        session: An onnxruntime session.
        provider: What was asked for: `cpu` or `cuda`.

    Raises:
        MissingExtraError: The session does not use it.
    """
    used = session.get_providers()
    if PROVIDERS[provider] in used:
        return
    raise MissingExtraError(
        f"provider `{provider}` was asked for, and onnxruntime fell back to {', '.join(used)}",
        hint="driver, CUDA or cuDNN is missing: see `nvidia-smi`; pip install 'onnxruntime-gpu[cuda,cudnn]'",
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
