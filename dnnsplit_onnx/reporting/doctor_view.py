"""What `doctor` found, from the dictionary that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.console import grid

if TYPE_CHECKING:
    from rich.console import Console


def print_diagnosis(console: Console, found: Mapping[str, Any]) -> None:
    """Prints versions, providers, libraries and extras, then what is wrong and what to do."""
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in found["packages"].items())
    _line(console, f"dnnsplit-onnx {found['dnnsplit_onnx']}, Python {found['python']}, {found['platform']}")
    _line(console, packages)
    _line(console, _runtime(found["onnxruntime"]))
    _print_cuda(console, found["cuda"])
    if found["extras"]:
        console.print()
        table = grid("extra", "", "for")
        for extra in found["extras"]:
            state = "broken" if extra["error"] else "installed" if extra["installed"] else "not installed"
            table.add_row(extra["name"], state, extra["purpose"] or "")
        console.print(table)
        unfit = _unfit(found)
        absent = [e["install"] for e in found["extras"] if not e["installed"] and e["name"] not in unfit]
        for line in absent:
            _line(console, f"  {line}", style="dim")
    console.print()
    for problem in found["problems"]:
        _line(console, f"problem: {problem['what']}", style="bold red")
        if problem["hint"]:
            _line(console, f"hint: {problem['hint']}")
    for advice in found["advice"]:
        _line(console, f"note: {advice}")
    if found["healthy"]:
        _line(console, "All that is installed works.", style="bold green")


def _unfit(found: Mapping[str, Any]) -> set[str]:
    """The extras of no use on this machine: another onnxruntime, and one for a GPU that is not there."""
    unfit = {"cpu"} if found["onnxruntime"]["usable"] else set()
    return unfit if found["cuda"]["driver"]["devices"] else {*unfit, "gpu"}


def _runtime(found: Mapping[str, Any]) -> str:
    if not found["distributions"]:
        return "onnxruntime: not installed"
    installed = ", ".join(f"{name} {version}" for name, version in found["distributions"].items())
    if found["version"] is None:
        return f"onnxruntime: {installed}; it cannot be used"
    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in found["providers"])
    usable = " and ".join(found["usable"]) or "nothing"
    return f"onnxruntime: {installed}; built for {providers}; a small model ran on {usable}"


def _print_cuda(console: Console, cuda: Mapping[str, Any]) -> None:
    driver, required = cuda["driver"], cuda["required"]
    devices = ", ".join(f"{d['name']} ({units.nbytes(d['memory_nbytes'])})" for d in driver["devices"])
    if driver["cuda"] is None:
        _line(console, f"CUDA: {driver['error']}")
    else:
        version = driver["version"] or "of unknown version"
        _line(console, f"CUDA: driver {version}, runs CUDA up to {driver['cuda']}; {devices or 'no GPU'}")
    if required is None:
        return
    _line(console, f"this onnxruntime is built for CUDA {required['cuda']} and cuDNN {required['cudnn']}:")
    width = max((len(library["name"]) for library in cuda["libraries"]), default=0)
    for library in cuda["libraries"]:
        absent = "missing, needed by a few operators" if library["optional"] else "missing"
        state = library["error"] or library["path"] or absent
        _line(console, f"  {library['name']:{width}}  {state}", style="dim" if library["path"] else "red")


def _line(console: Console, text: str, style: str | None = None) -> None:
    console.print(units.clean(text), style=style, soft_wrap=True)
