"""A predictor fitted on this machine: models timed node by node, and a regression for each kind.

Of each model every node and the whole are timed in turns; the nodes' times are scaled to add up
to the whole, so that a sum of predictions is one of a run. What others run on the machine makes
runs longer and never shorter, so the quickest tenth of the runs counts, and with one thread the
processor's time and not the clock's.

A kind's coefficients are non-negative least squares, a node's error weighed by the square root of
its time: absolute errors would see long nodes alone, relative ones short nodes alone. They are
scaled to give the kind's nodes their time in sum. A kind of few nodes takes the coefficients of all
nodes together, scaled so.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx._version import __version__
from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.machines.predictors import Kind, Predictor, Trial
from dnnsplit_onnx.measuring.measure import machine
from dnnsplit_onnx.measuring.profiling.nodes import trace_nodes
from dnnsplit_onnx.measuring.profiling.segments import empty_model, nothing
from dnnsplit_onnx.measuring.profiling.timing import clock_of, timed
from dnnsplit_onnx.runtime.options import SessionOptions
from dnnsplit_onnx.runtime.sessions import open_session
from dnnsplit_onnx.work.analysing import Source, analysis_from
from dnnsplit_onnx.work.features import AMOUNTS, features

_Floats = NDArray[np.float64]

#: Models to fit on at least: one is left out at a time.
FEWEST = 3
_RUNS = 30
#: What onnxruntime's clock of nodes tells apart.
_TICK_S = 1e-6
#: Bytes of one sort that are a smaller share than this of what the largest node of a kind moves say
#: nothing of it, and would be given what has other causes.
_LITTLE = 0.01
#: Kinds of fewer nodes are not fitted by themselves.
_FEW = 2 * (len(AMOUNTS) + 1)
#: Amounts are brought to millions, so that coefficients are of one size.
_SCALE = 1e-6


@dataclass(frozen=True)
class Observation:
    """What was measured of one model.

    Attributes:
        model: Its file's name.
        kinds: Of each node.
        amounts: Shape (n, a).
        seconds: Shape (n,): of each node; they add up to the whole less the fixed cost of a run.
        whole_s: Of the whole model.
    """

    model: str
    kinds: tuple[str, ...]
    amounts: _Floats
    seconds: _Floats
    whole_s: float


def fit_predictor(
    models: Sequence[Source],
    tier: str,
    *,
    options: SessionOptions | None = None,
    runs: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Predictor:
    """Fits a predictor of this machine on models.

    The result is a tier's `profile`, as it is or written to a file by `save`; it predicts any
    model. Its error is told by leaving each of these models out.

    Args:
        models: Three at least: analyses, or what `analyse` takes.
        tier: The tier that this machine is.
        options: Provider and threads.
        runs: Measured runs of each model [default: 30].
        progress: Called with models done, models in all, and what is being done.

    Raises:
        InputError: There are too few models, or nodes cannot be timed on the provider.
        ModelError: A model cannot be read or run.
        MissingExtraError: onnxruntime is not installed, or lacks the provider.
    """
    options = options or SessionOptions()
    if options.provider != "cpu":
        raise InputError(
            f"single nodes cannot be timed on `{options.provider}`: only their start is seen",
            hint="fit a predictor on the CPU, or measure the model itself: profile MODEL",
        )
    if len(models) < FEWEST:
        raise InputError(
            f"a predictor is fitted on {FEWEST} models at least, and {len(models)} given",
            hint="name more: --predict zoo:random_squeezenet --predict zoo:random_resnet50",
        )
    overhead_s = _overhead(options)
    seen = []
    for done, model in enumerate(models):
        if progress is not None:
            progress(done, len(models), "measuring")
        seen.append(observe(model, options, overhead_s, runs or _RUNS))
    return fitted(seen, tier, options, overhead_s)


def observe(model: Source, options: SessionOptions, overhead_s: float, runs: int) -> Observation:
    """Times one model, node by node and whole, in turns."""
    analysis = analysis_from(model)
    traced = trace_nodes(analysis, options=options, runs=runs, pick=quickest, beside=True)
    counted = features(analysis)
    seconds = np.array(traced.seconds)
    whole = quickest(traced.whole)
    total = seconds.sum()
    scale = max(whole - overhead_s, 0.0) / total if total > 0 else 1.0
    return Observation(analysis.graph.file.path.name, counted.kinds, counted.amounts, seconds * scale, whole)


def quickest(times: Sequence[float]) -> float:
    """The mean of the quickest tenth: whole microseconds are too coarse for a quantile."""
    ordered = sorted(times)
    return statistics.fmean(ordered[: (len(ordered) + 9) // 10]) if ordered else 0.0


def fitted(seen: Sequence[Observation], tier: str, options: SessionOptions, overhead_s: float) -> Predictor:
    """The predictor of what was measured, and its errors on each model left out."""
    trials = []
    for at, left in enumerate(seen):
        kinds, other = fit([*seen[:at], *seen[at + 1 :]])
        rows = [kinds.get(kind, other) for kind in left.kinds]
        each = [
            row.fixed_s + float(np.dot(row.per, own)) for row, own in zip(rows, left.amounts, strict=True)
        ]
        trials.append(Trial(model=left.model, measured_s=left.whole_s, predicted_s=sum(each) + overhead_s))
    kinds, other = fit(seen)
    about = machine()
    versions = {
        key: str(about.pop(key)) for key in list(about) if key.startswith(("onnxruntime", "numpy", "python"))
    }
    return Predictor(
        schema_version=1,
        what="predictor",
        producer=f"dnnsplit-onnx {__version__}",
        tier=tier,
        provider=options.provider,
        threads=options.threads or 0,
        amounts=AMOUNTS,
        kinds=kinds,
        other=other,
        overhead_s=overhead_s,
        trials=tuple(trials),
        machine=about,
        versions=versions,
    )


def fit(seen: Sequence[Observation]) -> tuple[dict[str, Kind], Kind]:
    """Coefficients of each kind, and those of all nodes together."""
    kinds = np.array([kind for one in seen for kind in one.kinds])
    amounts = np.concatenate([one.amounts for one in seen])
    seconds = np.concatenate([one.seconds for one in seen])
    pooled = _least_squares(amounts, seconds)
    pooled = pooled * _scale(_table(amounts) @ pooled, seconds)
    other = _kind(pooled, len(seconds))
    found = {}
    for kind in sorted(set(kinds.tolist())):
        rows = kinds == kind
        coefficients = _least_squares(amounts[rows], seconds[rows]) if rows.sum() >= _FEW else pooled
        scale = _scale(_table(amounts[rows]) @ coefficients, seconds[rows])
        found[kind] = _kind(coefficients * scale, int(rows.sum()))
    return found, other


def _kind(coefficients: _Floats, nodes: int) -> Kind:
    return Kind(fixed_s=float(coefficients[0]), per=tuple((coefficients[1:] * _SCALE).tolist()), nodes=nodes)


def _table(amounts: _Floats) -> _Floats:
    return np.concatenate((np.ones((len(amounts), 1)), amounts * _SCALE), axis=1)


def _scale(predicted: _Floats, seconds: _Floats) -> float:
    """What predictions are multiplied by to be right in sum."""
    total = float(predicted.sum())
    return float(seconds.sum()) / total if total > 0 else 0.0


def _least_squares(amounts: _Floats, seconds: _Floats) -> _Floats:
    """The non-negative coefficients of least weighted squares, the fixed one first.

    There are few, so every choice of those that are not zero is solved: the best solution
    without a negative coefficient is the optimum.
    """
    weights = 1 / np.sqrt(np.maximum(seconds, _TICK_S))
    table, target = _table(amounts) * weights[:, None], seconds * weights
    gram, right = table.T @ table, table.T @ target
    best, least = np.zeros(table.shape[1]), 0.0
    usable = _usable(amounts)
    for count in range(1, len(usable) + 1):
        for chosen in combinations(usable, count):
            at = list(chosen)
            solved = np.linalg.lstsq(gram[np.ix_(at, at)], right[at], rcond=None)[0]
            # Of the squared error, all but what does not depend on the coefficients.
            value = float(solved @ gram[np.ix_(at, at)] @ solved - 2 * solved @ right[at])
            if (solved >= 0).all() and value < least:
                best, least = np.zeros(table.shape[1]), value
                best[at] = solved
    return best


def _usable(amounts: _Floats) -> list[int]:
    """The columns that have something to say: the fixed one, work, and bytes that are not few."""
    sent = [at for at, name in enumerate(AMOUNTS) if name.endswith("nbytes")]
    least = _LITTLE * amounts[:, sent].sum(axis=1).max(initial=0.0)
    return [0, *(at + 1 for at in range(len(AMOUNTS)) if at not in sent or amounts[:, at].max() >= least)]


def _overhead(options: SessionOptions) -> float:
    """Seconds of a run of a model that does nothing."""
    with tempfile.TemporaryDirectory(prefix="dnnsplit-predict-") as scratch:
        session = open_session(empty_model(Path(scratch)), options)
        values = nothing()
        return quickest([timed(session, values, clock_of(options.threads)) for _ in range(_RUNS * 4)])
