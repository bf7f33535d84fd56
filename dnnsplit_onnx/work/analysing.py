"""From a model to its analysis: the one way there, for the library and the command line.

    graph, bound dimensions, types by inference, sizes seen in a run, work, order

Whatever is planned, swept, compared or profiled begins with `analyse`, or with an analysis
that the caller made by it; so positions always count in one order, and figures agree.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from dnnsplit_onnx.errors import DnnsplitError, InputError, MissingExtraError
from dnnsplit_onnx.graph import collection
from dnnsplit_onnx.graph.graph import Graph, load_graph, signatures
from dnnsplit_onnx.graph.identity import in_file_order
from dnnsplit_onnx.graph.shapes import Types, bind_shapes, free_dimensions
from dnnsplit_onnx.graph.states import State, likely_states, parse_states
from dnnsplit_onnx.work.analysis import Analysis, measure
from dnnsplit_onnx.work.orders import in_order
from dnnsplit_onnx.work.steering import steering

if TYPE_CHECKING:
    from dnnsplit_onnx.runtime.sizing import Trial

#: What a model may be given as.
Model = Graph | onnx.ModelProto | bytes | str | os.PathLike[str]
#: The same, or what was made of it before.
Source = Model | Analysis

# A model with more weights is not run unless the user asks for it.
_MOST_UNASKED = 1_000_000_000
# Nor is one run at other sizes if that takes minutes: bytes of weights, times tokens.
_MOST_RUN_FOR_SIZES = 1e11
# Pairs that a sentence names.
_MOST_TOLD = 3


@collection.put_off()
def analyse(
    model: Model,
    bindings: Mapping[str, int] | None = None,
    *,
    order: str = "envelope",
    states: Sequence[str] | None = None,
    trips: Mapping[str, int] | None = None,
    sample_input: Mapping[str, Any] | str | Path | None = None,
) -> Analysis:
    """Sizes, work and order of a model: what planning starts from.

    Args:
        model: A graph, in whatever order, an ONNX file, or a model in memory.
        bindings: Numbers for symbolic dimensions, by name. Others get sizes at which the model
            runs (`sizing`), or those of `sample_input`; what was assumed is `assumed` of the
            analysis, and told in `notes`.
        order: The order of the nodes that positions count in: `envelope`, in which the best
            cuts of the whole graph are positions, or `file`.
        states: What one run hands to the next, each as `IN=OUT`, or `IN=` for what stays for a
            whole sequence; `none` for nothing. By default what the graph has, or what names tell.
        trips: How often loops run, by the names of their nodes, where the model leaves it open.
        sample_input: Arrays by name, or an `.npz` file, for the run that shows what inference
            cannot size. Without it the run is a courtesy: it is made on random inputs, of a
            model of at most 1 GB of weights whose dimensions are all known, and what stands
            in its way leaves sizes unknown and is told in `notes`.

    Raises:
        ModelError: The model cannot be read.
        ShapeError: A binding names no dimension of the model, or is not positive.
        InputError: There is no such order, a state names no input and output, or
            `sample_input` does not fit.
        MissingExtraError: `sample_input` is given, and onnxruntime is not installed.
    """
    graph = in_file_order(_graph(model, states))
    types, assumed, told = _sized(graph, dict(bindings or {}), sample_input)
    sized = types
    types, notes = _with_observed(types, sample_input)
    if sample_input is None and types is not sized:
        notes += steering(sized, types, trips)
    if states is None:
        notes += _likely_states(graph)
    analysis = replace(measure(graph, types, trips), assumed=assumed, notes=(*told, *notes))
    return in_order(analysis, order)


def at_sizes(analysis: Analysis, bindings: Mapping[str, int]) -> Analysis:
    """An analysis of the same nodes, in the same order, at other sizes of the open dimensions.

    Args:
        analysis: The model.
        bindings: A number for each of them.

    Raises:
        ShapeError: A binding names no dimension of the model, or is none that it can have.
    """
    types = bind_shapes(analysis.graph, bindings)
    work = max(bindings.values(), default=1) * types.weight_nbytes
    if types.unsized and work <= _MOST_RUN_FOR_SIZES:
        types, _ = _with_observed(types, None)
    measured = measure(analysis.graph, types, analysis.trips)
    return replace(measured, order=analysis.order, input_nbytes=analysis.input_nbytes)


def analysis_from(source: Source, bindings: Mapping[str, int] | None = None) -> Analysis:
    """The analysis of whatever a model is given as.

    Args:
        source: An analysis, which is taken as it is; or what `analyse` takes.
        bindings: Numbers for symbolic dimensions.

    Raises:
        InputError: The analysis was made with other bindings.
        DnnsplitError: As for `analyse`.
    """
    if not isinstance(source, Analysis):
        return analyse(source, bindings)
    known = source.types.bindings
    for name, number in (bindings or {}).items():
        if known.get(name) != number:
            raise InputError(
                f"the analysis has {name}={known.get(name, 'unbound')}, not {number}",
                hint="pass the bindings to `analyse`, or the graph in place of its analysis",
            )
    return source


def _graph(model: Model, states: Sequence[str] | None) -> Graph:
    if not isinstance(model, Graph):
        return load_graph(Path(model) if isinstance(model, os.PathLike) else model, states)
    if states is None:
        return model
    return replace(model, states=parse_states(states, model.inputs, model.outputs))


def _likely_states(graph: Graph) -> tuple[str, ...]:
    """What may be a state, and is taken for none; in one sentence if there are any."""
    likely = likely_states(*signatures(graph.proto.graph, graph.inputs), graph.states)
    if not likely:
        return ()
    pairs = ", ".join(map(_told, likely[:_MOST_TOLD]))
    more = f" and {len(likely) - _MOST_TOLD} more" if len(likely) > _MOST_TOLD else ""
    option = " ".join(shlex.quote(f"--state={state.pair}") for state in likely)
    return (f"{pairs}{more} may be states, which stay on their tier between runs; if so: {option}",)


def _told(state: State) -> str:
    """A state in a sentence."""
    return (
        f"`{state.input}` for a whole sequence"
        if state.output is None
        else f"`{state.input}` and `{state.output}`"
    )


def _sized(
    graph: Graph, bindings: Mapping[str, int], sample: Mapping[str, Any] | str | Path | None
) -> tuple[Types, dict[str, int], tuple[str, ...]]:
    """Types with a number for every dimension, as far as one can be found.

    Returns:
        The types, the sizes that were assumed, and what is to be said of them.
    """
    free = free_dimensions(graph, bindings)
    if not free:
        return bind_shapes(graph, bindings), {}, ()
    from dnnsplit_onnx.runtime.sizing import Sizes, Trial, find_sizes, sizes_of_arrays, usual_sizes

    if sample is not None:
        from dnnsplit_onnx.runtime.inputs import load_arrays

        arrays = load_arrays(sample) if isinstance(sample, str | Path) else sample
        given = sizes_of_arrays(graph, arrays, bindings)
        return bind_shapes(graph, {**bindings, **given}), {}, ()
    usual = usual_sizes(graph, bindings)
    types = bind_shapes(graph, {**bindings, **usual.sizes})
    is_large = types.weight_nbytes > _MOST_UNASKED
    found = usual
    # A batch of one is sized by inference or not at all; all else is worth a run.
    if not is_large and (set(usual.sizes.values()) != {1} or types.unsized):
        try:
            found = find_sizes(graph, bindings)
        except MissingExtraError:
            pass
        except DnnsplitError as error:
            found = Sizes({}, (Trial(usual.sizes, -1, error.message),))
    if found.sizes != usual.sizes:
        types = bind_shapes(graph, {**bindings, **found.sizes})
    if not found.sizes:
        return replace(types, refused=tuple(map(str, found.failed))), {}, _refused(free, found.failed)
    return types, dict(found.sizes), (_assumed(found.sizes, untried=is_large),)


def _assumed(sizes: Mapping[str, int], *, untried: bool) -> str:
    listed = ", ".join(f"{name}={size}" for name, size in sizes.items())
    more = " (not tried: the model has over 1 GB of weights)" if untried else ""
    first = next(iter(sizes))
    return f"assumed {listed}{more}; pass --bind {shlex.quote(f'{first}=N')} ... to plan for yours"


def _refused(free: Sequence[str], failed: Sequence[Trial]) -> tuple[str, ...]:
    listed = ", ".join(f"`{name}`" for name in free)
    tried = "; ".join(map(str, failed))
    return (
        f"found no sizes of {listed} at which the model runs ({tried}); "
        "give inputs that it accepts: --sample-input X.npz",
    )


def _with_observed(
    types: Types, sample: Mapping[str, Any] | str | Path | None
) -> tuple[Types, tuple[str, ...]]:
    """Sizes that inference cannot prove, seen in one run where that is possible.

    Returns:
        The types, and what is to be said of them.
    """
    if not types.unsized or (sample is None and free_dimensions(types.graph, types.bindings)):
        return types, ()
    if sample is None and types.weight_nbytes > _MOST_UNASKED:
        return types, (
            "some shapes cannot be inferred; a sample input (--sample-input X.npz) shows them in one run",
        )
    from dnnsplit_onnx.runtime.observing import observe

    try:
        seen = observe(types, sample)
    except DnnsplitError as error:
        if sample is not None:
            raise
        return types, (f"some shapes cannot be inferred, and a run to see them failed: {error.message}",)
    source = f"`{sample}`" if isinstance(sample, str | Path) else "random" if sample is None else "the given"
    inputs = "" if isinstance(sample, str | Path) else " inputs"
    return seen, (
        f"{len(types.unsized)} sizes could not be inferred; they are those of one run on {source}{inputs}",
    )
