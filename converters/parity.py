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
from dnnsplit_onnx.converters.reasons import reason
from dnnsplit_onnx.errors import VerificationError

# Largest relative difference allowed, by the coarsest type that a model computes in. Half
# precision has 2^-11, and sums of a thousand terms in another order lose ten times that.
TOLERANCES = {"float64": 1e-4, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}

_NOT_FINITE = "is not finite"
_WITHOUT_NUMBERS = (
    "pass inputs that the model makes numbers of: --input X.npz, made by numpy.savez('X.npz', NAME=array); "
    "or pass --no-check"
)
_UNTRAINED = "give the model trained or larger random weights, or pass --no-check"


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


def compare(
    reference: Mapping[str, Array], got: Mapping[str, Array], *, at: str = "", hint: str | None = None
) -> Difference:
    """How far onnxruntime's outputs are from the framework's.

    Args:
        reference: The framework's.
        got: onnxruntime's.
        at: What the inputs were, for the message.
        hint: What may help where shapes differ.

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
                + (f", at {at}" if at else ""),
                hint=hint,
            )
        apart = difference(expected, actual)
        max_abs = max(max_abs, apart[0])
        if apart[1] > worst.max_rel:
            worst = Difference(apart[0], apart[1], name)
    return Difference(max_abs, worst.max_rel, worst.output)


def difference(expected: Array, actual: Array) -> tuple[float, float]:
    """Largest absolute difference, and that over the largest magnitude expected.

    What is not finite has to be the same: a masked score is minus infinity in both.
    """
    if not expected.size:
        return 0.0, 0.0
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    a, b = expected.astype(wide), actual.astype(wide)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf"), float("inf")
    a, b = a[finite], b[finite]
    if not a.size:
        return 0.0, 0.0
    apart = float(np.max(np.abs(a - b)))
    scale = float(np.max(np.abs(a)))
    if not np.isfinite(apart):
        return float("inf"), float("inf")
    if apart == 0.0:
        return 0.0, 0.0
    return apart, apart / scale if scale else float("inf")


def refuse_vacuous(outputs: Mapping[str, Array], tolerance: float, batch: int | None) -> None:
    """Fails where comparing with these outputs would prove nothing.

    Args:
        outputs: What the framework gave.
        tolerance: Largest relative difference allowed.
        batch: Number of different samples that went in, None if unknown.

    Raises:
        VerificationError: See the module's docstring.
    """
    for name, array in outputs.items():
        why = _vacuous(array, tolerance, batch)
        if why:
            raise VerificationError(
                f"the check proves nothing: output `{name}` {why}",
                hint=_WITHOUT_NUMBERS if why == _NOT_FINITE else _UNTRAINED,
            )


def _vacuous(array: Array, tolerance: float, batch: int | None) -> str | None:
    if array.dtype.kind not in "fc" or array.size < 2:
        return None
    if not np.isfinite(array).all():
        return _NOT_FINITE
    scale = float(np.max(np.abs(array)))
    if scale == 0.0:
        return "is zero throughout"
    if float(np.ptp(array.real)) <= 2 * tolerance * scale:
        return f"is constant (within {tolerance:g} of {scale:.3g})"
    many = batch is not None and batch > 1 and array.ndim > 1 and array.shape[0] == batch
    if many and difference(array[0], array[1])[1] <= 2 * tolerance:
        return "is the same for different inputs"
    return None


class OnnxRun:
    """A model in onnxruntime on the CPU, as a user would run it.

    Raises:
        VerificationError: onnxruntime refuses the model.
    """

    def __init__(self, model: Path) -> None:
        import onnxruntime as ort  # heavy

        options = ort.SessionOptions()
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no class
            raise VerificationError(
                f"onnxruntime cannot load the converted model: {reason(error)}",
                hint="another --route or --opset may give one that it can",
            ) from error

    def __call__(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Runs the model; inputs that it does not have are left out."""
        wanted = {value.name for value in self._session.get_inputs()}
        names = list(outputs) if outputs else [value.name for value in self._session.get_outputs()]
        results: list[Any] = self._session.run(names, {k: v for k, v in feeds.items() if k in wanted})
        return dict(zip(names, results, strict=True))
