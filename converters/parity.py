"""Framework against onnxruntime, on the same seeded input.

The difference is taken per output: the largest absolute difference over the output's
largest magnitude. An element-wise ratio would blow up where an element is near zero.

A check that cannot fail proves nothing. So it fails as *vacuous* where an output

1. holds a number that is not finite;
2. is the same throughout, within the tolerance (all zero included);
3. is the same for two different samples of a batch, within the tolerance.

Untrained models easily are: a softmax over vanishing logits gives 1/1000 for any image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dnnsplit_onnx.converters.adapter import Array
from dnnsplit_onnx.converters.samples import SAMPLES
from dnnsplit_onnx.errors import VerificationError

TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two results of one model are apart.

    Attributes:
        max_abs: Largest absolute difference of any element of any output.
        max_rel: Largest, over outputs, of that difference over the largest magnitude.
        output: The output that gave `max_rel`.
    """

    max_abs: float
    max_rel: float
    output: str


def compare(reference: Mapping[str, Array], got: Mapping[str, Array]) -> Difference:
    """How far onnxruntime's outputs are from the framework's.

    Raises:
        VerificationError: An output is missing, or has another shape.
    """
    worst = Difference(0.0, 0.0, next(iter(reference), ""))
    max_abs = 0.0
    for name, expected in reference.items():
        actual = got.get(name)
        if actual is None or actual.shape != expected.shape:
            shape = "nothing" if actual is None else f"shape {list(actual.shape)}"
            raise VerificationError(
                f"output `{name}` has {shape} in onnxruntime, shape {list(expected.shape)} in the framework"
            )
        apart = difference(expected, actual)
        max_abs = max(max_abs, apart[0])
        if apart[1] > worst.max_rel:
            worst = Difference(apart[0], apart[1], name)
    return Difference(max_abs, worst.max_rel, worst.output)


def difference(expected: Array, actual: Array) -> tuple[float, float]:
    """Largest absolute difference, and that over the largest magnitude expected."""
    if not expected.size:
        return 0.0, 0.0
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    a, b = expected.astype(wide), actual.astype(wide)
    with np.errstate(invalid="ignore"):
        apart = float(np.max(np.abs(a - b)))
        scale = float(np.max(np.abs(a)))
    if not np.isfinite(apart):
        return float("inf"), float("inf")
    if apart == 0.0:
        return 0.0, 0.0
    return apart, apart / scale if scale else float("inf")


def refuse_vacuous(outputs: Mapping[str, Array], tolerance: float) -> None:
    """Fails where comparing with these outputs would prove nothing.

    Raises:
        VerificationError: See the module's docstring.
    """
    for name, array in outputs.items():
        why = _vacuous(array, tolerance)
        if why:
            raise VerificationError(
                f"the check proves nothing: output `{name}` {why}",
                hint="give the model trained or larger random weights, or pass --no-check",
            )


def _vacuous(array: Array, tolerance: float) -> str | None:
    if array.dtype.kind not in "fc" or array.size < 2:
        return None
    if not np.isfinite(array).all():
        return "is not finite"
    scale = float(np.max(np.abs(array)))
    if scale == 0.0:
        return "is zero throughout"
    if float(np.ptp(array.real)) <= 2 * tolerance * scale:
        return f"is constant (within {tolerance:g} of {scale:.3g})"
    samples = array.shape[0] if array.ndim > 1 else 1
    if samples == SAMPLES and difference(array[0], array[1])[1] <= 2 * tolerance:
        return "is the same for different inputs"
    return None


def run_onnx(
    model: Path, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None
) -> dict[str, Array]:
    """Runs a model in onnxruntime on the CPU, as a user would."""
    import onnxruntime as ort  # heavy, and not needed with --no-check

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    names = list(outputs) if outputs else [value.name for value in session.get_outputs()]
    results: list[Any] = session.run(names, {k: v for k, v in feeds.items() if k in wanted})
    return dict(zip(names, results, strict=True))
