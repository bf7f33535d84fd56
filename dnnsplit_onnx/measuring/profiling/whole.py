"""One call that measures a model on this machine: `profile`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.machines.profiles import Measurement, Profile
from dnnsplit_onnx.machines.topology import Workload
from dnnsplit_onnx.measuring.profiling.codes import measure_codes
from dnnsplit_onnx.measuring.profiling.nodes import trace_nodes
from dnnsplit_onnx.measuring.profiling.segments import Progress, measure_segments
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.work.analysing import Source, analysis_from
from dnnsplit_onnx.work.texts import text_of


def profile(
    model: Source,
    tier: str,
    *,
    bindings: Mapping[str, int] | None = None,
    options: SessionOptions | None = None,
    inputs: Mapping[str, Any] | str | Path | None = None,
    runs: int | None = None,
    per_node: bool = False,
    codes: bool = False,
    samples: str | Path | None = None,
    workload: Workload | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Measures what a model takes on this machine, between the cuts that a plan may use.

    The result is a tier's `profile`, as it is or written to a file by `save`.

    Args:
        model: An analysis, or what `analyse` takes.
        tier: The tier that this machine is.
        bindings: Numbers for symbolic dimensions, where no analysis is given.
        options: Provider and threads.
        inputs: Arrays by name, or an `.npz` file [default: random inputs].
        runs: Measured runs of everything [default: twenty seconds' worth].
        per_node: Whether to time each node too; on the CPU alone.
        codes: Whether to write the values of the cuts in every code, and to pack them.
        samples: An `.npz` file of inputs for that, several along the first axis [default: `inputs`].
        workload: If it is of texts, the passes of one are measured, each by itself: those over the
            prompt, and a step in the middle of the answer.
        progress: Called as runs are done.

    Raises:
        InputError: The model has no nodes, or nodes cannot be timed on the provider.
        ShapeError: A dimension of an input is not bound.
        ModelError: The model cannot be read or run.
        MissingExtraError: onnxruntime is not installed, or lacks the provider.
    """
    options = options or SessionOptions()
    if per_node and options.provider != "cpu":
        raise InputError(
            f"single nodes cannot be timed on `{options.provider}`: only their start is seen",
            hint="leave out --per-node: the segments between cuts are timed to their end",
        )
    analysis = analysis_from(model, bindings)
    if workload is not None and workload.has_texts:
        if inputs is not None or codes:
            raise InputError(
                "passes of a text have inputs of unequal sizes", hint="leave out --input and --codes"
            )
        passes = [
            profile(one, tier, options=options, runs=runs, per_node=per_node, progress=progress)
            for one in text_of(analysis, workload).single
        ]
        others = tuple(Measurement.model_validate(one.model_dump()) for one in passes[1:])
        return passes[0].model_copy(update={"phases": others})
    found = measure_segments(analysis, tier, options=options, inputs=inputs, runs=runs, progress=progress)
    more: dict[str, Any] = {}
    if per_node:
        more["node_seconds"] = trace_nodes(analysis, options=options, inputs=inputs).seconds
    if codes:
        more["codes"] = measure_codes(analysis, options=options, inputs=inputs, samples=samples)
    return found.model_copy(update=more)
