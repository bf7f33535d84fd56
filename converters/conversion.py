"""What a conversion is asked to do, and what it did, as data."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Options:
    """How to convert.

    Attributes:
        check: Compare framework and onnxruntime.
        tolerance: Largest relative difference allowed; None for what the model's precision allows.
        seed: Seed of the inputs to compare on.
        sizes: Numbers for open dimensions by name; `batch` fixes the batch size.
        force: Replace an output that is there.
        trust: Load files that can run code of their author's.
        inputs: An `.npz` file of inputs that the model takes, by their names; None for inputs made up.
        opened: Dimensions to leave open, as `INPUT.AXIS` or `INPUT.AXIS=NAME`.
        opset: The version of ONNX's operators to write; None for the exporter's own.
        imports: Modules to import before a file is loaded, for the layers that they register.
        task: What a Hugging Face model is for, such as `text-generation`; None for what it says itself.
        with_past: Whether a decoder takes and gives its caches.
    """

    check: bool = True
    tolerance: float | None = None
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    force: bool = False
    trust: bool = False
    inputs: str | None = None
    opened: Sequence[str] = ()
    opset: int | None = None
    imports: Sequence[str] = ()
    task: str | None = None
    with_past: bool = False


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the converted model.

    Attributes:
        name: Its name in the ONNX file.
        dtype: Element type as onnx spells it in lower case (`float`, `int64`).
        shape: A number or a symbolic name for each dimension.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Conversion:
    """The report of one conversion.

    Attributes:
        source: What was converted, as the caller named it.
        output: The ONNX file.
        route: `keras-torch`, `keras-tf` or `pytorch`.
        reason: Why that route ran, in one line.
        versions: Versions of the libraries that took part.
        seconds: Wall time of the whole, the check included.
        peak_nbytes: Most memory that the converting process held.
        inputs: The model's inputs.
        outputs: The model's outputs.
        nodes: Number of nodes in the file.
        layers: Number of layers of the framework's model, 0 where unknown.
        parameters: Number of elements in its weights.
        layers_named: Share of nodes that carry a layer's name, from 0 to 1.
        checked: Whether framework and onnxruntime were compared.
        checked_at: What they were compared at, one entry each: the author's example, then
            sizes of the open dimensions (`batch=3 time=13`).
        max_abs_diff: Largest absolute difference of any output, None if not checked.
        max_rel_diff: The same over the output's largest magnitude, None if not checked.
        tolerance: The largest relative difference that was allowed.
        notes: What a user should know besides.
    """

    source: str
    output: str
    route: str
    reason: str
    versions: Mapping[str, str]
    seconds: float
    peak_nbytes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: int
    layers: int
    parameters: int
    layers_named: float
    checked: bool
    checked_at: tuple[str, ...]
    max_abs_diff: float | None
    max_rel_diff: float | None
    tolerance: float
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Conversion:
        """The report that `to_dict` wrote."""

        def ports(entries: Any) -> tuple[Port, ...]:
            return tuple(Port(e["name"], e["dtype"], tuple(e["shape"])) for e in entries)

        return Conversion(
            **{
                **data,
                "inputs": ports(data["inputs"]),
                "outputs": ports(data["outputs"]),
                "checked_at": tuple(data["checked_at"]),
                "notes": tuple(data["notes"]),
            }
        )


def peak_nbytes() -> int:
    """Peak resident memory of this process, in bytes.

    On Linux from the kernel's own mark, which starts anew with each program: `getrusage`
    also counts what the parent held when it started this process.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
