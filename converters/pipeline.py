"""One conversion, the same for all routes: run, export, finish, compare, put in place.

The output appears whole or not at all: everything is written to a temporary folder beside
it and renamed at the end, after the check.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from dnnsplit_onnx.converters.adapter import Adapter, Array
from dnnsplit_onnx.converters.conversion import Conversion, Port
from dnnsplit_onnx.converters.divergence import first_divergence
from dnnsplit_onnx.converters.finishing import Finished, finish
from dnnsplit_onnx.converters.memory import peak_nbytes
from dnnsplit_onnx.converters.parity import TOLERANCE, Difference, compare, refuse_vacuous, run_onnx
from dnnsplit_onnx.converters.routes import Route
from dnnsplit_onnx.converters.samples import sample_inputs
from dnnsplit_onnx.errors import OutputError, VerificationError
from dnnsplit_onnx.graph.modelfile import open_model


@dataclass(frozen=True, slots=True)
class Options:
    """How to convert.

    Attributes:
        check: Compare framework and onnxruntime.
        tolerance: Largest relative difference allowed.
        seed: Seed of the inputs to compare on.
        sizes: Numbers for open dimensions by name; `batch` fixes the batch size.
        force: Replace an output that is there.
    """

    check: bool = True
    tolerance: float = TOLERANCE
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    force: bool = False


def run_conversion(adapter: Adapter, source: str, output: Path, route: Route, options: Options) -> Conversion:
    """Converts a loaded model.

    Args:
        adapter: The framework's model.
        source: How the user named it.
        output: The ONNX file to write.
        route: Why this route.
        options: How.

    Raises:
        InputError: The exporter cannot take the model.
        VerificationError: Framework and onnxruntime differ, or the check proves nothing.
        OutputError: The output cannot be written.
    """
    start = time.perf_counter()
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise OutputError(f"cannot write `{output}`: {error.strerror}") from None
    try:
        feeds = sample_inputs(adapter.inputs, options.seed)
        # The framework runs first: nothing is exported that could not be checked.
        reference = adapter.run(feeds) if options.check else []
        finished = _export(adapter, folder, output.name)
        gc.collect()
        apart = None
        if options.check:
            apart = _check(adapter, finished.files[0], feeds, reference, options)
        model = onnx_ports(finished.files[0])
        for file in reversed(finished.files):  # the model last: it needs its weights
            file.replace(output.parent / file.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Conversion(
        source=source,
        output=str(output),
        route=route.name,
        reason=route.reason,
        versions=adapter.versions(),
        seconds=round(time.perf_counter() - start, 3),
        peak_nbytes=peak_nbytes(),
        inputs=model[0],
        outputs=model[1],
        nodes=finished.nodes,
        layers=adapter.layers,
        parameters=adapter.parameters,
        layers_named=round(finished.layers_named, 4),
        checked=options.check,
        max_abs_diff=apart.max_abs if apart else None,
        max_rel_diff=apart.max_rel if apart else None,
        tolerance=options.tolerance,
        notes=tuple(adapter.notes),
    )


def _export(adapter: Adapter, folder: Path, name: str) -> Finished:
    raw = folder / "exported" / "model.onnx"
    raw.parent.mkdir()
    adapter.export(raw)
    finished = finish(
        raw, folder / name, adapter.layer_of, {spec.name: spec.shape for spec in adapter.inputs}
    )
    shutil.rmtree(raw.parent)  # the weights are on disk twice for no longer than needed
    return finished


def _check(
    adapter: Adapter, model: Path, feeds: Mapping[str, Array], reference: list[Array], options: Options
) -> Difference:
    """Compares onnxruntime with what the framework gave.

    Raises:
        VerificationError: They differ by more than the tolerance, or nothing is proven.
    """
    got = run_onnx(model, feeds)
    if len(got) != len(reference):
        raise VerificationError(f"{len(reference)} outputs in the framework, {len(got)} in ONNX")
    expected = dict(zip(got, reference, strict=True))
    refuse_vacuous(expected, options.tolerance)
    apart = compare(expected, got)
    if apart.max_rel > options.tolerance:
        culprit = first_divergence(adapter, model, feeds, options.tolerance)
        raise VerificationError(
            f"onnxruntime differs from the framework by {apart.max_rel:.3g} relative in output "
            f"`{apart.output}` (allowed: {options.tolerance:g})",
            context=f"first at {culprit}" if culprit else "no single layer could be named",
            hint="a larger --tolerance accepts it; another --route may convert it right",
        )
    return apart


def onnx_ports(model: Path) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """The inputs and outputs of an ONNX file."""
    graph = open_model(model).proto.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = tuple(_port(value) for value in graph.input if value.name not in weights)
    return inputs, tuple(_port(value) for value in graph.output)


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    dims = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
    return Port(value.name, onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), dims)
