"""One conversion, the same for all routes: run, export, finish, compare, put in place.

The output appears whole or not at all: everything is written to a temporary folder beside
it and renamed at the end, after the check.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx

from dnnsplit_onnx.converters.adapter import Adapter, Array
from dnnsplit_onnx.converters.conversion import Conversion, Options, Port, peak_nbytes
from dnnsplit_onnx.converters.divergence import first_divergence
from dnnsplit_onnx.converters.extras import has
from dnnsplit_onnx.converters.finishing import Finished, Seen, finish
from dnnsplit_onnx.converters.parity import (
    TOLERANCES,
    Difference,
    OnnxRun,
    compare,
    difference,
    refuse_vacuous,
)
from dnnsplit_onnx.converters.reasons import reason
from dnnsplit_onnx.converters.routes import Route
from dnnsplit_onnx.converters.samples import (
    Trial,
    bind,
    first_trial,
    more_trials,
    open_dims,
    refuse_outside,
    sizes_of,
    with_examples,
)
from dnnsplit_onnx.errors import InputError, OutputError, VerificationError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.modelfile import open_model


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
    tolerance = options.tolerance or TOLERANCES[adapter.precision]
    adapter.inputs = bind(open_dims(adapter.inputs, options.opened), options.sizes)
    refuse_outside(options.sizes, adapter.limits)
    adapter.inputs = with_examples(adapter.inputs, given_inputs(options), options.inputs or "")
    adapter.opset = options.opset
    try:
        # The framework runs first: nothing is exported that could not be checked.
        first = first_trial(adapter, options.seed)
        trials = [first, *more_trials(adapter, first, options.seed)] if options.check else []
        finished = _export(adapter, first, trials or [first], folder, output.name)
        gc.collect()
        apart = _check(adapter, finished.files[0], trials, tolerance)
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
        checked_at=tuple(trial.what for trial in trials),
        max_abs_diff=apart.max_abs if apart else None,
        max_rel_diff=apart.max_rel if apart else None,
        tolerance=tolerance,
        notes=tuple(adapter.notes),
    )


def given_inputs(options: Options) -> dict[str, Array]:
    """The inputs that the user gave in a file, none if there is none.

    Raises:
        InputError: It cannot be read.
    """
    if options.inputs is None:
        return {}
    try:
        with np.load(options.inputs, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"cannot read `{options.inputs}`: {reason(error)}",
            hint="write it with numpy.savez(path, NAME=array)",
        ) from error


def _export(adapter: Adapter, first: Trial, trials: list[Trial], folder: Path, name: str) -> Finished:
    raw = folder / "exported" / "model.onnx"
    raw.parent.mkdir()
    adapter.export(raw, first.feeds)
    _refuse_fixed(adapter, onnx_ports(raw)[0], first)
    seen = [
        Seen(sizes_of(adapter.inputs, trial.feeds), [value.shape for value in trial.expected])
        for trial in trials
    ]
    dims = {spec.name: spec.shape for spec in adapter.inputs}
    finished = finish(raw, folder / name, adapter.layer_of, dims, seen)
    _note_opset(adapter, finished.files[0])
    shutil.rmtree(raw.parent)  # the weights are on disk twice for no longer than needed
    return finished


def _note_opset(adapter: Adapter, model: Path) -> None:
    """Notes where an exporter wrote another version of the operators than it was asked for."""
    imports = open_model(model).proto.opset_import
    written = next((entry.version for entry in imports if entry.domain in ("", "ai.onnx")), None)
    if adapter.opset is not None and written not in (None, adapter.opset):
        adapter.notes.append(f"opset {written}, not {adapter.opset}: the exporter writes no other here")


def _refuse_fixed(adapter: Adapter, ports: tuple[Port, ...], first: Trial) -> None:
    """Fails where a dimension that should be open came out as a number.

    Raises:
        InputError: One did.
    """
    exported = {port.name: port.shape for port in ports}
    for spec in adapter.inputs:
        for dim, got in zip(spec.shape, exported.get(spec.name, ()), strict=False):
            if isinstance(dim, str) and isinstance(got, int):
                raise InputError(
                    f"dimension `{dim}` of input `{spec.name}` came out fixed at {got}: "
                    f"the exporter met code that needs its size",
                    hint=_fix(adapter, first, dim) or f"if {got} is what you want, pass --bind {dim}={got}",
                )


def _fix(adapter: Adapter, first: Trial, dim: str | None = None) -> str | None:
    """What to type so that a model whose open dimensions fail is converted with fixed ones."""
    sizes = sizes_of(adapter.inputs, first.feeds)
    names = [dim] if dim in sizes else [name for name in sizes if name != "batch"] or list(sizes)
    options = " ".join(f"--bind {name}={sizes[name]}" for name in names)
    return f"fix it at the size that you use, such as {options}" if options else None


def _check(adapter: Adapter, model: Path, trials: list[Trial], tolerance: float) -> Difference | None:
    """Loads the model once, and compares onnxruntime with what the framework gave.

    Returns:
        The largest differences of all trials; None without trials.

    Raises:
        VerificationError: onnxruntime refuses the model, they differ by more than the
            tolerance, or nothing is proven.
        ModelError: The file is not a valid model.
    """
    load_graph(model)
    if not trials and not has("cpu"):
        return None
    run = OnnxRun(model)
    parts = [_compare(adapter, model, run, trials[0], trial, tolerance) for trial in trials]
    if not parts:
        return None
    worst = max(parts, key=lambda part: part.max_rel)
    return Difference(max(part.max_abs for part in parts), worst.max_rel, worst.output)


def _compare(
    adapter: Adapter, model: Path, run: OnnxRun, first: Trial, trial: Trial, tolerance: float
) -> Difference:
    hint = "a larger --tolerance accepts it; another --route may convert it right"
    if trial is not first and trial.batch is not None:  # other sizes, and not the example
        hint = _fix(adapter, first) or hint
    try:
        got = run(trial.feeds)
    except Exception as error:  # onnxruntime's errors share no class
        raise VerificationError(
            f"onnxruntime does not run the model at {trial.what}, which the framework does",
            context=reason(error),
            hint=hint,
        ) from error
    if len(got) != len(trial.expected):
        raise VerificationError(f"{len(trial.expected)} outputs in the framework, {len(got)} in ONNX")
    expected = dict(zip(got, trial.expected, strict=True))
    if trial is first:
        refuse_vacuous(expected, tolerance, trial.batch)
    apart = compare(expected, got, at=trial.what, hint=hint)
    if apart.max_rel > tolerance:
        _refuse_random(adapter, trial, tolerance)
        culprit = first_divergence(adapter, model, trial.feeds, tolerance)
        raise VerificationError(
            f"onnxruntime differs from the framework by {apart.max_rel:.3g} relative in output "
            f"`{apart.output}` at {trial.what} (allowed: {tolerance:g})",
            context=f"first at {culprit}" if culprit else "no single layer could be named",
            hint=hint,
        )
    return apart


def _refuse_random(adapter: Adapter, trial: Trial, tolerance: float) -> None:
    """Fails where the framework itself gives something else for the same inputs.

    Raises:
        VerificationError: It does; no export could agree with it.
    """
    again = adapter.run(trial.feeds)
    apart = max((difference(a, b)[1] for a, b in zip(trial.expected, again, strict=True)), default=0.0)
    if apart > tolerance:
        raise VerificationError(
            f"the framework itself differs from one run to the next, by {apart:.3g} relative at {trial.what}",
            hint="its code draws at random where it only infers: F.dropout(x, p, training=self.training), "
            "or nn.Dropout, draws in training alone",
        )


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
