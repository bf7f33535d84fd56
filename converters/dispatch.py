"""`convert`: from a source to a route, here or in a fresh process."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dnnsplit_onnx.converters.child import convert_in_child
from dnnsplit_onnx.converters.conversion import Conversion, Options
from dnnsplit_onnx.converters.extras import require
from dnnsplit_onnx.converters.loading import convert_here
from dnnsplit_onnx.converters.routes import choose_route
from dnnsplit_onnx.converters.sources import parse_source
from dnnsplit_onnx.errors import InputError, OutputError


def convert(
    source: Any,
    output: str | Path,
    *,
    route: str | None = None,
    check: bool = True,
    tolerance: float | None = None,
    batch: int | None = None,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    force: bool = False,
    trust: bool = False,
    inputs: str | Path | None = None,
    opened: Sequence[str] = (),
    opset: int | None = None,
    imports: Sequence[str] = (),
    task: str | None = None,
    with_past: bool = False,
) -> Conversion:
    """Converts a Keras or PyTorch model to ONNX and checks that it computes the same.

    A live model is converted in this process; everything else in a fresh one.

    Args:
        source: A `.keras` or `.h5` file, a SavedModel folder, a `.pt2` exported program,
            a TorchScript file, a Hugging Face folder, `zoo:NAME`, `package.module:callable` or
            `package.module:callable(3, "x")`, or a live model: a `keras.Model`, or an
            `nn.Module` paired with example inputs. A callable returns one of these live
            models; with PyTorch it may add a third value, the names of open dimensions by
            input name and axis.
        output: The ONNX file. Weights of 2 GB and more go to `NAME.data` beside it.
        route: `keras-torch`, `keras-tf` or `pytorch`; None to choose, see `routes`.
        check: Compare with onnxruntime, at several sizes of every open dimension.
        tolerance: Largest difference allowed, relative to an output's largest magnitude;
            None for 1e-4, and more where the model computes in half precision.
        batch: Fixed batch size; None leaves it open under the name `batch`.
        sizes: Numbers for other open dimensions, by name.
        seed: Seed of the input to compare on.
        force: Replace `output` if it is there.
        trust: Load files that can run their author's code: exported programs that hold
            more than tensors.
        inputs: An `.npz` file of inputs that the model takes, by their names; their values
            are kept where others might make no sense.
        opened: Dimensions to leave open, as `INPUT.AXIS=NAME`.
        opset: The version of ONNX's operators; None for the exporter's own choice.
        imports: Modules to import before a Keras file is loaded: they register its layers.
        task: What a Hugging Face folder is for, such as `text-classification`; None for
            what its configuration says.
        with_past: Whether a decoder from a Hugging Face folder takes and gives its caches.

    Returns:
        What was done, how, and how close the two are.

    Raises:
        InputError: The source cannot be read, or its framework cannot export it.
        OutputError: The output is there already, or cannot be written.
        MissingExtraError: A library is not installed; the hint installs it.
        VerificationError: The two differ, or the check proves nothing.
    """
    output = Path(output)
    parsed = parse_source(source)
    if output.exists() and not force:
        raise OutputError(f"`{output}` exists already", hint="pass --force to replace it")
    if not output.absolute().parent.is_dir():
        raise OutputError(f"no such folder: `{output.parent}`", hint="create it first")
    bound = {**(sizes or {}), **({} if batch is None else {"batch": batch})}
    for name, size in bound.items():
        if size < 1:
            raise InputError(f"dimension `{name}` cannot be {size}", hint="sizes are 1 or more")
    chosen = choose_route(parsed, route)
    if check:
        require("the check of the converted model", "cpu")
    start = time.perf_counter()
    options = Options(
        check=check,
        tolerance=tolerance,
        seed=seed,
        sizes=bound,
        force=force,
        trust=trust,
        inputs=None if inputs is None else str(inputs),
        opened=tuple(opened),
        opset=opset,
        imports=tuple(imports),
        task=task,
        with_past=with_past,
    )
    if parsed.live is not None:
        report = convert_here(parsed, output, chosen, options)
    else:
        report = convert_in_child(parsed, output, chosen, options, sys.path)
    return dataclasses.replace(report, seconds=round(time.perf_counter() - start, 2))
