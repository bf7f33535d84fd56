"""Sizes of open dimensions at which a model really runs, found by trying.

The model is opened once, its nodes named by their places in the file, so that an error tells
how far a run came. The first trial has the usual size of every dimension. While a trial fails,
one dimension, or all that seem to be of one kind, gets another size: numbers that the error
speaks of, and sizes that are usual. The first change after which the run comes further is
kept. Trials are counted and not timed, but for one that runs for ten seconds: it is broken off.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx

from dnnsplit_onnx.errors import DnnsplitError, InputError
from dnnsplit_onnx.graph.bodies import subgraphs
from dnnsplit_onnx.graph.dimensions import axis_name, is_name, names_in, size_of
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.shapes import bind_shapes, free_dimensions
from dnnsplit_onnx.graph.usual import OpenSize, open_sizes, ports_of
from dnnsplit_onnx.runtime.inputs import generate, to_values
from dnnsplit_onnx.runtime.messages import without_signature
from dnnsplit_onnx.runtime.options import SessionOptions
from dnnsplit_onnx.runtime.sessions import Session, open_session

_MOST_TRIALS = 250
# A run that takes longer is no typical one: a loop that finds no end, or far too large an input.
_LONGEST_RUN_S = 10.0
_MOST_ELEMENTS = 1 << 26
_PLACE = re.compile(r"#(\d+)(?=['`])")
_STATUS = "Status Message: "
_NUMBER = re.compile(r"(?<![\w.])\d{1,7}(?![\w.])")
_BRACES = re.compile(r"\{([\d,\s-]+)\}")
_TOLD = 3
_LONGEST = 200
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Trial:
    """One run.

    Attributes:
        sizes: The sizes of the open dimensions.
        reached: The place of the node that failed, bodies counted; beyond all if none did.
        message: What failed, empty if nothing did.
    """

    sizes: Mapping[str, int]
    reached: int
    message: str

    def __str__(self) -> str:
        return f"{', '.join(f'{name}={size}' for name, size in self.sizes.items())}: {self.message}"


@dataclass(frozen=True)
class Sizes:
    """What was found.

    Attributes:
        sizes: For each open dimension the size to assume; empty if the model runs at none.
        failed: Some of the trials that failed, the one that came furthest first; none if one ran.
        ran: Whether the model ran at these sizes.
    """

    sizes: Mapping[str, int]
    failed: tuple[Trial, ...] = ()
    ran: bool = False


def usual_sizes(graph: Graph, bindings: Mapping[str, int]) -> Sizes:
    """The usual size of every open dimension, untried."""
    return Sizes(_first(_open(graph, bindings)))


def find_sizes(graph: Graph, bindings: Mapping[str, int]) -> Sizes:
    """Sizes of the open dimensions at which the model runs on made-up inputs.

    Raises:
        ModelError: onnxruntime cannot load the model.
        MissingExtraError: onnxruntime is not installed.
    """
    dims = _open(graph, bindings)
    places: list[tuple[int, str]] = []
    session = open_session(
        graph.file.path,
        SessionOptions(optimize=False, by_priority=True),
        label="the model",
        rewrite=lambda model: places.extend(_numbered(model)),
    )
    return _Search(graph, session, ports_of(graph), dict(bindings), dims, places).find()


def _open(graph: Graph, bindings: Mapping[str, int]) -> list[OpenSize]:
    free = set(free_dimensions(graph, bindings))
    states = [state.input for state in graph.states]
    return [dim for dim in open_sizes(ports_of(graph), states, bindings) if dim.name in free]


def _numbered(model: onnx.ModelProto) -> list[tuple[int, str]]:
    """Names the nodes by numbers, bodies included.

    Returns:
        For each number, the index of the node in the graph, or of the one that holds it, and
        the name that it had.
    """
    places: list[tuple[int, str]] = []
    pending = [(node, index) for index, node in enumerate(model.graph.node)][::-1]
    while pending:
        node, index = pending.pop()
        name = node.name or (node.output[0] if node.output else node.op_type)
        node.name = f"#{len(places)}"
        places.append((index, name))
        pending += [(inner, index) for body in subgraphs(node) for inner in body.node][::-1]
    return places


def _first(dims: Sequence[OpenSize]) -> dict[str, int]:
    """The most usual sizes; a total is what stands in the cache and what is new."""
    sizes = {dim.name: dim.usual[0] for dim in dims}
    parts = [next((sizes[dim.name] for dim in dims if dim.role == role), 0) for role in ("past", "length")]
    if sum(parts):
        sizes.update({dim.name: sum(parts) for dim in dims if dim.role == "total"})
    return sizes


@dataclass
class _Search:
    graph: Graph
    session: Session
    ports: Sequence[Port]
    bindings: Mapping[str, int]
    dims: Sequence[OpenSize]
    places: Sequence[tuple[int, str]]
    trials: list[Trial] = field(default_factory=list)
    heard: set[str] = field(default_factory=set)

    def find(self) -> Sizes:
        """Climbs from the usual sizes to such that the model runs through."""
        best = self.run(_first(self.dims))
        while best.message:
            better = self.climb(best)
            if better is None:
                break
            best = better
        if not best.message:
            return Sizes(best.sizes, ran=True)
        others = sorted(self.trials, key=lambda trial: -trial.reached)
        return Sizes({}, tuple([best, *(other for other in others if other is not best)][:_TOLD]))

    def climb(self, trial: Trial) -> Trial | None:
        """The first trial that comes further than this one."""
        self.heard.add(_NUMBER.sub("", trial.message))
        for sizes in self.changes(trial):
            if len(self.trials) >= _MOST_TRIALS:
                return None
            if any(sizes == known.sizes for known in self.trials):
                continue
            other = self.run(sizes)
            # Another complaint of the same node is a step too, the first time it is heard.
            new = other.reached == trial.reached and _NUMBER.sub("", other.message) not in self.heard
            if other.reached > trial.reached or new:
                return other
        return None

    def run(self, sizes: Mapping[str, int]) -> Trial:
        """Runs the model once."""
        trial = self._run(dict(sizes))
        self.trials.append(trial)
        return trial

    def _run(self, sizes: dict[str, int]) -> Trial:
        try:
            inputs = generate(self.ports, {**self.bindings, **sizes}, most=_MOST_ELEMENTS)
            self.session.run(to_values(self.ports, inputs.values), longest_s=_LONGEST_RUN_S)
        except DnnsplitError as error:
            # The cause is the runtime's own text, where the innermost node stands last.
            text = str(error.__cause__ or error.message)
            found = [int(place) for place in _PLACE.findall(text) if int(place) < len(self.places)]
            if not found:
                return Trial(sizes, -1, error.message.removeprefix("the model fails to run: "))
            why = without_signature(" ".join(text.rpartition(_STATUS)[2].split()))
            return Trial(sizes, max(found), f"node `{self.places[max(found)][1]}`: {why[:_LONGEST]}")
        return Trial(sizes, len(self.places), "")

    def changes(self, trial: Trial) -> Iterator[dict[str, int]]:
        """Other sizes to try after a failure, those first that the failure speaks of.

        Of pictures and sounds it speaks last: many sizes of them run, and few are used.
        """
        groups = self.groups(trial.reached)
        spoken = self.spoken(trial)
        roles = {dim.name: dim.role for dim in self.dims}
        groups_spoken = [group for group in groups if roles[group[0]] != "batch"]
        told = [group for group in groups_spoken if roles[group[0]] not in ("image", "samples")]
        for group in told:
            for size in (*spoken, *_scaled(trial, group, spoken)):
                yield {**trial.sizes, **dict.fromkeys(group, size)}
        usual = {dim.name: dim.usual for dim in self.dims}
        for at in range(max(map(len, usual.values()))):
            for group in groups:
                for size in usual[group[0]][at : at + 1]:
                    yield {**trial.sizes, **dict.fromkeys(group, size)}
        for group in groups_spoken:
            for size in () if group in told else (*spoken, *_scaled(trial, group, spoken)):
                yield {**trial.sizes, **dict.fromkeys(group, size)}
        yield from self.pairs(trial, groups_spoken)

    def spoken(self, trial: Trial) -> list[int]:
        """The sizes that a failure is about: numbers of its message, shapes that met there."""
        shapes = [_numbers_in(shape) for shape in _BRACES.findall(trial.message)]
        found = [int(number) for number in _NUMBER.findall(trial.message.partition(":")[2])]
        if trial.reached >= 0 and len(found) < 2:
            shapes += self.shapes_at(trial)
        for shape in shapes:
            found += [*shape, math.prod(size for size in shape if size > 0)]
        return [size for size in dict.fromkeys(found) if 1 < size <= _LARGEST]

    def shapes_at(self, trial: Trial) -> list[list[int]]:
        """The shapes of what the failing node reads, as far as inference tells them."""
        index = self.places[trial.reached][0]
        types = bind_shapes(self.graph, {**self.bindings, **trial.sizes})
        shapes = [types[name].shape or () for name in self.graph.proto.graph.node[index].input]
        return [[size for size in shape if isinstance(size, int)] for shape in shapes]

    def pairs(self, trial: Trial, groups: Sequence[tuple[str, ...]]) -> Iterator[dict[str, int]]:
        """Two kinds changed at once, by what the failure speaks of."""
        spoken = self.spoken(trial)[:6]
        for at, one in enumerate(groups):
            for other in groups[at + 1 :]:
                for first in spoken:
                    for second in spoken:
                        yield {**trial.sizes, **dict.fromkeys(one, first), **dict.fromkeys(other, second)}

    def groups(self, reached: int) -> list[tuple[str, ...]]:
        """Dimensions to change: each, then all of a kind together; a batch comes last.

        Only those of inputs that the failing node depends on.
        """
        reading = self.inputs_of(self.places[reached][0]) if reached >= 0 else set()
        dims = [dim for dim in self.dims if not reading or reading & set(dim.inputs)] or list(self.dims)
        kinds: dict[str, list[str]] = {}
        for dim in sorted(dims, key=lambda dim: dim.role in ("batch", "list")):
            kinds.setdefault(dim.role, []).append(dim.name)
        found: list[tuple[str, ...]] = [(name,) for names in kinds.values() for name in names]
        found += [tuple(names) for names in kinds.values()]
        lengths = tuple(dim.name for dim in dims if dim.role in ("length", "past", "total", "feature"))
        return list(dict.fromkeys([*found, *([lengths] if lengths else [])]))

    def inputs_of(self, index: int) -> set[str]:
        """The model inputs that a node of the file depends on."""
        graph = self.graph
        place = {node.index: at for at, node in enumerate(graph.nodes)}
        if index not in place:
            return set()
        pending, seen, found = [place[index]], set[int](), set[str]()
        while pending:
            at = pending.pop()
            if at in seen:
                continue
            seen.add(at)
            for name in graph.nodes[at].inputs:
                if name in graph.producer:
                    pending.append(graph.producer[name])
                else:
                    found.add(name)
        return found


def _numbers_in(shape: str) -> list[int]:
    return [int(size) for size in shape.split(",") if size.strip().lstrip("-").isdecimal()]


def _scaled(trial: Trial, group: Sequence[str], spoken: Sequence[int]) -> Iterator[int]:
    """Sizes that would turn one number of a message into another, where strides lie between."""
    size = trial.sizes[group[0]]
    for got in spoken[:6]:
        for wanted in spoken[:6]:
            ratio = wanted / got
            for factor in (ratio, math.sqrt(ratio)) if len(group) > 1 else (ratio,):
                scaled = round(size * factor)
                if got != wanted and 1 < scaled <= _LARGEST:
                    yield scaled


def sizes_of_arrays(graph: Graph, arrays: Mapping[str, Any], bindings: Mapping[str, int]) -> dict[str, int]:
    """The sizes that given inputs have; a name that stands for unequal ones is told axis by axis.

    Raises:
        InputError: An input has another number of dimensions than the model reads.
    """
    found: dict[str, int] = {}
    axes: dict[str, int] = {}
    for port in ports_of(graph):
        shape = getattr(arrays.get(port.name), "shape", None)
        if port.kind != "tensor" or port.shape is None or shape is None:
            continue
        if len(shape) != len(port.shape):
            raise InputError(f"input `{port.name}` has the shape {shape}, the model reads {port.shape}")
        for axis, (size, dim) in enumerate(zip(shape, port.shape, strict=True)):
            if isinstance(dim, int) or size < 1:
                continue
            axes[axis_name(port.name, axis)] = size
            if is_name(dim) and names_in(str(dim)) == (dim,):
                found.setdefault(str(dim), size)
    known = {**found, **bindings}
    for port in ports_of(graph):
        for axis, dim in enumerate(port.shape or ()):
            name = axis_name(port.name, axis)
            if name in axes and size_of(dim, port.name, axis, known) != axes[name]:
                found[name] = axes[name]
    return {name: size for name, size in found.items() if name not in bindings}
