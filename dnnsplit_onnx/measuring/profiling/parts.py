"""The two parts of each cut, timed as what they would be: a slice that runs by itself.

A cut keeps operators from being fused over it and makes the runtime convert layouts twice,
and a part that starts after another one finds the processor's caches full of something
else. No sum of segments tells what that takes. So each cut is made, its two parts and the
whole take turns, and the parts are scaled to the speed the machine had when the whole was
measured. One cut is open at a time: memory holds the model twice.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dnnsplit_onnx.machines.profiles import Parts
from dnnsplit_onnx.measuring.profiling.timing import Budget, spread, tiers_of, timed
from dnnsplit_onnx.measuring.speeds import pace, typical
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.runtime.options import SessionOptions
from dnnsplit_onnx.runtime.sessions import Session
from dnnsplit_onnx.runtime.values import Value
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.work.analysis import Analysis


def measure_parts(
    analysis: Analysis,
    cuts: Sequence[int],
    whole: Session,
    whole_s: float,
    values: Mapping[str, Value],
    options: SessionOptions,
    budget: Budget,
    on_run: Callable[[], None],
) -> tuple[Parts, ...]:
    """Times both parts of each cut.

    Args:
        analysis: The model.
        cuts: Positions strictly between the first node and the last.
        whole: A session of the whole model.
        whole_s: Its median seconds, to which all is scaled.
        values: The model's inputs.
        options: Provider and threads.
        budget: How long to measure each cut.
        on_run: Called after each run.
    """
    found = []
    for cut in cuts:
        with tempfile.TemporaryDirectory(prefix="dnnsplit-profile-") as scratch:
            folder = Path(scratch) / "parts"
            made = plan(analysis, tiers_of(2), cuts=[cut], pareto=False)
            manifest = slice_model(analysis.graph, made, folder)
            chain = Chain.open(folder, lambda _: options, manifest=manifest, check=False)
            found.append(_Turns(chain, whole, values).measure(cut, whole_s, budget, on_run))
    return tuple(found)


class _Turns:
    """The parts of one cut and the whole, in turns."""

    def __init__(self, chain: Chain, whole: Session, values: Mapping[str, Value]) -> None:
        self._chain, self._whole, self._values = chain, whole, values
        self.parts: dict[str, list[float]] = {tier: [] for tier, _ in chain.stages}
        self.whole: list[float] = []
        self.paces: list[float] = []

    def measure(self, cut: int, whole_s: float, budget: Budget, on_run: Callable[[], None]) -> Parts:
        for _ in range(budget.warmup):
            self._once()
        for taken in (*self.parts.values(), self.whole, self.paces):
            taken.clear()
        start = time.perf_counter()
        while not budget.is_spent(len(self.whole), time.perf_counter() - start):
            self._once()
            on_run()
        scale = whole_s / typical(self.whole, self.paces)
        below, above = self.parts.values()
        return Parts(
            position=cut,
            below_s=typical(below, self.paces) * scale,
            above_s=typical(above, self.paces) * scale,
            spread_s=max(spread(below), spread(above)) * scale,
            runs=len(self.whole),
        )

    def _once(self) -> None:
        self.paces.append(pace())
        self._chain.run_values(self._values, on_stage=lambda tier, s: self.parts[tier].append(s))
        self.whole.append(timed(self._whole, self._values))
