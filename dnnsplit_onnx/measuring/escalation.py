"""How often a small model is not sure, and how often it agrees with the large one: both run on samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.runtime.inputs import to_values
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.samples import sample_sets
from dnnsplit_onnx.runtime.sessions import open_session
from dnnsplit_onnx.runtime.values import to_python
from dnnsplit_onnx.slicing.extract import port
from dnnsplit_onnx.work.analysis import Analysis

# Outputs whose sum is this close to 1 are probabilities already.
_IS_ONE = 1e-3


@dataclass(frozen=True, slots=True)
class Escalation:
    """What samples say of a cascade.

    Attributes:
        threshold: The least probability of its first class at which the small model is sure.
        escalated: The share of samples of which it is not.
        small: The share that it puts in the large model's class.
        cascade: The same of the cascade.
        samples: How many there were.
    """

    threshold: float
    escalated: float
    small: float
    cascade: float
    samples: int


def measure_escalation(small: Analysis, large: Analysis, samples: str | Path, threshold: float) -> Escalation:
    """Runs two classifiers on samples: how often the small one would escalate, and how often both agree.

    Args:
        small: The small model. Its first output has a score for each class, and so has the large one's.
        large: The large model.
        samples: An `.npz` file with arrays for the inputs of both, or a folder of pictures.
        threshold: The least probability of its first class at which the small model is sure; scores
            that are no probabilities go through a softmax first.

    Raises:
        InputError: The samples do not fit, or the models do not know the same classes.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"a threshold of {threshold:g} is no probability", hint="give one from 0 to 1")
    mine, theirs = _scores(small, samples), _scores(large, samples)
    if len(mine) != len(theirs):
        raise InputError(f"`{samples}` holds {len(mine)} samples of one model and {len(theirs)} of the other")
    if mine.shape != theirs.shape:
        raise InputError(
            f"the small model scores {mine.shape[1]:,} classes and the large one {theirs.shape[1]:,}",
            hint="give a small model of the same classes",
        )
    sure = _probabilities(mine).max(axis=1) >= threshold
    agrees = mine.argmax(axis=1) == theirs.argmax(axis=1)
    return Escalation(
        threshold,
        escalated=float(1 - sure.mean()),
        small=float(agrees.mean()),
        cascade=float((agrees | ~sure).mean()),
        samples=len(mine),
    )


def _scores(analysis: Analysis, samples: str | Path) -> NDArray[np.float64]:
    """Shape (samples, classes): a model's first output."""
    graph = analysis.graph
    ports = [port(value) for value in graph.proto.graph.input if value.name in graph.inputs]
    session = open_session(graph.file.path, label=f"`{graph.file.path}`")
    ort, first = runtime(), graph.outputs[0]
    rows: list[NDArray[np.float64]] = []
    for one in sample_sets(ports, samples, analysis.types.bindings):
        scores: Any = to_python(ort, session.run(to_values(ports, one.values))[first])
        if not isinstance(scores, np.ndarray) or scores.dtype.kind != "f" or scores.size < 2:
            raise InputError(f"output `{first}` of `{graph.file.path}` has no scores of classes")
        rows.append(np.asarray(scores, np.float64).reshape(-1))
    return np.array(rows)


def _probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores as they are where each row is a distribution, else their softmax."""
    if (scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1) <= _IS_ONE).all():
        return scores
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
