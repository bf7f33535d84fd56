"""Outputs of chain and whole held against each other, with optimisations off and on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_dtypes import finfo

from dnnsplit_onnx.measuring.compare import Difference, combine, compare, vacuous
from dnnsplit_onnx.measuring.evidence import OutputCheck

#: The outputs of each run, by name.
Results = list[dict[str, Any]]

# Types with few digits (float16, bfloat16) get at least this tolerance, in units of the
# last place.
_LAST_PLACES = 8


@dataclass(frozen=True, slots=True)
class Levels:
    """The outputs of chain and whole, with optimisations off and on."""

    chain: Results
    whole: Results
    optimized_chain: Results
    optimized_whole: Results

    def check(self, name: str, tolerance: Mapping[str, float], *, varied: bool) -> OutputCheck:
        """One output held against the whole model's."""
        plain = difference(self.chain, self.whole, name)
        optimized = difference(self.optimized_chain, self.optimized_whole, name)
        shift = difference(self.optimized_whole, self.whole, name)
        whole = of(self.whole, name)
        return OutputCheck(
            name=name,
            bitwise=plain.bitwise,
            max_abs_diff=plain.max_abs,
            max_rel_diff=plain.max_rel,
            optimized_max_abs_diff=optimized.max_abs,
            optimized_max_rel_diff=optimized.max_rel,
            whole_optimization_shift=shift.max_abs,
            within_tolerance=is_near(optimized, shift, last_place_of(whole), tolerance),
            vacuous=vacuous(whole, varied=varied),
        )

    def same_types(self, name: str) -> bool:
        """Whether an output has at least its type and its number of dimensions."""

        def kind(result: Any) -> Any:
            return (result.dtype, result.ndim) if isinstance(result, np.ndarray) else type(result)

        ours, theirs = of(self.chain, name), of(self.whole, name)
        return [kind(result) for result in ours] == [kind(result) for result in theirs]


def of(results: Results, name: str) -> list[Any]:
    """One value of each run."""
    return [run[name] for run in results]


def difference(ours: Results, theirs: Results, name: str) -> Difference:
    """The worst difference of one value over all runs."""
    pairs = zip(of(ours, name), of(theirs, name), strict=True)
    return combine([compare(a, b) for a, b in pairs])


def is_near(
    optimized: Difference, shift: Difference, last_place: float | None, tolerance: Mapping[str, float]
) -> bool:
    """Whether rounding explains the distance.

    A slice is optimised within its own borders, so the chain may lie anywhere between the
    plain and the optimised whole: what the whole itself moves is allowed as well.

    Args:
        optimized: Chain against whole, both optimised.
        shift: The optimised whole against the plain one.
        last_place: Relative precision of the output's type, None for whole numbers and strings.
        tolerance: What is allowed besides.
    """
    if optimized.max_abs <= shift.max_abs:
        return True
    if last_place is None:
        return optimized.mismatched <= tolerance["mismatched_share"] + shift.mismatched
    relative = max(tolerance["rtol"], _LAST_PLACES * last_place)
    return optimized.max_abs <= tolerance["atol"] + relative * optimized.scale + shift.max_abs


def last_place_of(results: list[Any]) -> float | None:
    """The relative precision of an output's type, None if it holds no fractions."""
    first = results[0]
    while isinstance(first, list) and first:
        first = first[0]
    if isinstance(first, dict):
        first = np.asarray(next(iter(first.values()), 0))
    if not isinstance(first, np.ndarray):
        return None
    try:
        # It knows numpy's types as well as its own.
        return float(finfo(first.dtype).eps)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):
        return None
