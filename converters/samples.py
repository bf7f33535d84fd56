"""Seeded inputs: to trace a model with, and to compare framework and onnxruntime on.

A model is compared

1. on its author's own example, values and sizes, if there is one;
2. at the sizes that it is traced with: those of the example, but no dimension of one,
   which torch's exporter would take for a constant;
3. at other sizes of all open dimensions: another batch, the rest odd and longer;
4. with a batch of one.

The framework decides which sizes a model takes: where it refuses some, others are tried.
"""

from __future__ import annotations

import ast
import operator
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dnnsplit_onnx.converters.adapter import BATCH, Adapter, Array, InputSpec
from dnnsplit_onnx.converters.reasons import reason
from dnnsplit_onnx.errors import InputError

# Two samples, since equal samples would show a model that ignores its input.
SAMPLES = 2
# Sizes to trace with where no example says one: images have to be larger than text.
OPEN_SIZES = (6, 32, 64, 224)
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}

Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Trial:
    """Inputs, and what the framework makes of them.

    Attributes:
        what: What the inputs are, for people.
        feeds: The inputs by name.
        expected: The framework's outputs.
        batch: Size of the batch where its samples are known to differ, None elsewhere.
    """

    what: str
    feeds: Mapping[str, Array]
    expected: list[Array]
    batch: int | None = None


def first_trial(adapter: Adapter, seed: int) -> Trial:
    """Inputs at the sizes that the model is traced with.

    Raises:
        InputError: The framework runs the model at none of the sizes that were tried.
    """
    failure: Exception | None = None
    for sizes in _first_sizes(adapter):
        try:
            return _trial(adapter, sizes, seed)
        except Exception as error:  # the model's own code
            failure = failure or error
    shown = ", ".join(f"{spec.name} [{', '.join(map(str, spec.shape))}]" for spec in adapter.inputs)
    raise InputError(
        f"the model does not run on inputs made up for it: {reason(failure or ValueError())}",
        context=f"its inputs are {shown}",
        hint="pass inputs that it takes: --input X.npz, made by numpy.savez('X.npz', NAME=array)",
    ) from failure


def more_trials(adapter: Adapter, first: Trial, seed: int) -> list[Trial]:
    """The author's example, other sizes, and a batch of one.

    Adds a note to the adapter's where its model takes no other sizes than the first.
    """
    trials = []
    examples = {spec.name: spec.example for spec in adapter.inputs}
    given = {name: array for name, array in examples.items() if array is not None}
    if given and len(given) == len(examples) and all(_fits(spec) for spec in adapter.inputs):
        trials.append(Trial("the example", given, adapter.run(given)))
    names = open_names(adapter.inputs)
    if not names:
        return trials
    sizes = sizes_of(adapter.inputs, first.feeds)
    unchecked = set(names)
    for candidate in _other_sizes(sizes, adapter.limits):
        try:
            trials.append(_trial(adapter, candidate, seed))
        except Exception:  # sizes that the framework refuses nobody can use
            continue
        unchecked -= {name for name in names if candidate[name] != sizes[name]}
        break
    one = {**sizes, BATCH: 1}
    if one != sizes and BATCH in names and _allowed(one, adapter.limits):
        try:
            trials.append(_trial(adapter, one, seed))
        except Exception:  # as above
            adapter.notes.append("the framework itself does not run a batch of one")
    if unchecked:
        shown = ", ".join(f"`{name}` at {sizes[name]}" for name in names if name in unchecked)
        adapter.notes.append(f"the framework itself ran no other size that was tried than {shown}")
    return trials


def _fits(spec: InputSpec) -> bool:
    """Whether an input's example has the sizes that were asked for."""
    shape = spec.example.shape if spec.example is not None else ()
    return all(isinstance(dim, str) or dim == size for dim, size in zip(spec.shape, shape, strict=True))


def _trial(adapter: Adapter, sizes: Sizes, seed: int) -> Trial:
    feeds = sample_inputs(adapter.inputs, sizes, seed)
    what = " ".join(f"{name}={size}" for name, size in sizes.items()) or "its only size"
    batch = sizes.get(BATCH, feeds[adapter.inputs[0].name].shape[0] if adapter.inputs[0].shape else None)
    return Trial(what, feeds, adapter.run(feeds), batch)


def _first_sizes(adapter: Adapter) -> Iterator[dict[str, int]]:
    """Sizes to trace with, the likeliest first."""
    names = open_names(adapter.inputs)
    examples = {spec.name: spec.example for spec in adapter.inputs if spec.example is not None}
    known = sizes_of(adapter.inputs, examples)
    for size in OPEN_SIZES:
        sizes = {name: SAMPLES if name == BATCH else size for name in names}
        sizes.update({name: max(2, count) for name, count in known.items()})
        yield {name: _clamped(count, adapter.limits.get(name)) for name, count in sizes.items()}
        if len(known) == len(names) or set(names) <= {BATCH}:
            return


def _other_sizes(sizes: Sizes, limits: Mapping[str, tuple[int, int]]) -> Iterator[dict[str, int]]:
    """Other sizes than these, odd and longer first."""
    others = [name for name in sizes if name != BATCH]
    longer = {name: (size + min(size, 32)) | 1 for name, size in sizes.items()}
    attempts = [
        {name: longer[name] + 2 * at for at, name in enumerate(others)},
        {name: longer[name] for name in others},
        {name: sizes[name] + 1 + sizes[name] % 2 for name in others},
        {name: 2 * sizes[name] for name in others},
        {name: max(2, sizes[name] - 1) for name in others},
        {name: max(2, sizes[name] // 2) for name in others},
        {},
    ]
    for attempt in attempts:
        changed = {**sizes, **attempt, **({BATCH: sizes[BATCH] + 1} if BATCH in sizes else {})}
        clamped = {name: _clamped(size, limits.get(name)) for name, size in changed.items()}
        if clamped != sizes:
            yield clamped


def _clamped(size: int, limit: tuple[int, int] | None) -> int:
    return size if limit is None else min(max(size, limit[0]), limit[1])


def _allowed(sizes: Sizes, limits: Mapping[str, tuple[int, int]]) -> bool:
    return all(_clamped(size, limits.get(name)) == size for name, size in sizes.items())


def open_names(specs: Iterable[InputSpec]) -> list[str]:
    """The names of all open dimensions, the batch first."""
    names = [name for spec in specs for dim in spec.shape if isinstance(dim, str) for name in _names(dim)]
    return sorted(dict.fromkeys(names), key=lambda name: name != BATCH)


def sizes_of(specs: Iterable[InputSpec], feeds: Mapping[str, Array]) -> dict[str, int]:
    """The size that each open dimension has in these inputs."""
    found: dict[str, int] = {}
    for spec in specs:
        if spec.name in feeds:
            pairs = zip(spec.shape, feeds[spec.name].shape, strict=True)
            found.update({dim: size for dim, size in pairs if isinstance(dim, str) and dim.isidentifier()})
    return {name: found[name] for name in open_names(specs) if name in found}


def bind(specs: Sequence[InputSpec], sizes: Sizes) -> tuple[InputSpec, ...]:
    """The inputs with numbers for some of their open dimensions.

    Raises:
        InputError: A size is of no open dimension: nobody would notice a typo otherwise.
    """
    known = open_names(specs)
    for name in sizes:
        if name not in known:
            listed = ", ".join(f"`{dim}`" for dim in known)
            raise InputError(
                f"the model has no open dimension `{name}`",
                hint=f"its open dimensions are {listed}" if listed else "all of its dimensions are fixed",
            )

    def bound(dim: int | str) -> int | str:
        if isinstance(dim, int) or not set(_names(dim)) & set(sizes):
            return dim
        if set(_names(dim)) <= set(sizes):
            return size_of(dim, sizes)
        return re.sub(r"[A-Za-z_]\w*", lambda name: str(sizes.get(name[0], name[0])), dim)

    return tuple(replace(spec, shape=tuple(map(bound, spec.shape))) for spec in specs)


def refuse_outside(sizes: Sizes, limits: Mapping[str, tuple[int, int]]) -> None:
    """Makes sure that sizes are among those that the model takes.

    Raises:
        InputError: One is not.
    """
    for name, size in sizes.items():
        nearest = _clamped(size, limits.get(name))
        if nearest != size:
            bound = "at least" if nearest > size else "at most"
            raise InputError(
                f"dimension `{name}` cannot be {size}: the model takes {bound} {nearest}",
                hint=f"--bind {name}={nearest} is the nearest that it takes",
            )


def open_dims(specs: Sequence[InputSpec], opened: Sequence[str]) -> tuple[InputSpec, ...]:
    """The inputs with further dimensions open.

    Args:
        specs: The inputs.
        opened: `INPUT.AXIS`, which is named `INPUT_AXIS`, or `INPUT.AXIS=NAME`.

    Raises:
        InputError: There is no such input or axis.
    """
    shapes = {spec.name: list(spec.shape) for spec in specs}
    for text in opened:
        where, _, name = text.partition("=")
        port, _, axis = where.rpartition(".")
        if port not in shapes or not axis.isdecimal() or int(axis) >= len(shapes[port]):
            first = specs[0].name if specs else "INPUT"
            raise InputError(
                f"no dimension `{where}` to leave open",
                hint=f"pass INPUT.AXIS=NAME, such as --open {first}.0=batch; the inputs are "
                + ", ".join(f"{known} {shape}" for known, shape in shapes.items()),
            )
        label = name or re.sub(r"\W", "_", f"{port}_{axis}")
        if not label.isidentifier():
            raise InputError(f"`{label}` is no name of a dimension", hint="letters, digits and _")
        shapes[port][int(axis)] = label
    return tuple(replace(spec, shape=tuple(shapes[spec.name])) for spec in specs)


def with_examples(
    specs: Sequence[InputSpec], arrays: Mapping[str, Array], source: str
) -> tuple[InputSpec, ...]:
    """The inputs with the values that a user gave.

    Raises:
        InputError: An array is of no input, or does not fit it.
    """
    for name in arrays:
        if name not in {spec.name for spec in specs}:
            listed = ", ".join(f"`{spec.name}`" for spec in specs)
            raise InputError(f"`{source}` holds `{name}`, which is no input", hint=f"the inputs are {listed}")

    def given(spec: InputSpec) -> InputSpec:
        array = arrays.get(spec.name)
        if array is None:
            return spec
        fits = array.ndim == len(spec.shape) and all(
            isinstance(dim, str) or dim == size for dim, size in zip(spec.shape, array.shape, strict=False)
        )
        if not fits or array.dtype.kind != spec.dtype.kind:
            shape = f"{spec.dtype}[{', '.join(map(str, spec.shape))}]"
            raise InputError(
                f"`{spec.name}` of `{source}` is {array.dtype}{list(array.shape)}; the model takes {shape}",
                hint="write it with numpy.savez(path, NAME=array), of that type and shape",
            )
        return replace(spec, example=array.astype(spec.dtype), exact=True)

    return tuple(map(given, specs))


def _names(dim: str) -> list[str]:
    return re.findall(r"[A-Za-z_]\w*", dim)


def size_of(dim: int | str, sizes: Sizes) -> int:
    """The size of a dimension: a number, a name, or a formula of names.

    Raises:
        ValueError: It is a formula of something else than sums and products.
    """
    if isinstance(dim, int):
        return dim
    return _value(ast.parse(dim, mode="eval").body, sizes) if dim not in sizes else sizes[dim]


def _value(node: ast.expr, sizes: Sizes) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return sizes[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        result: int = _OPERATORS[type(node.op)](_value(node.left, sizes), _value(node.right, sizes))
        return result
    raise ValueError(f"cannot compute the size {ast.unparse(node)}")


def sample_inputs(specs: Sequence[InputSpec], sizes: Sizes, seed: int = 0) -> dict[str, Array]:
    """Inputs to compare with: seeded, and different in every sample of the batch.

    Where the author gave an example that says something, its values are taken, repeated to
    fill the shape and moved by one position from sample to sample. Floats otherwise are
    drawn from a normal distribution, samples with slowly growing spread and offset, since
    networks that average over an image see little else of noise. Integers and booleans
    are drawn below the input's bound.
    """
    return {spec.name: _sample(spec, sizes, seed) for spec in specs}


def _sample(spec: InputSpec, sizes: Sizes, seed: int) -> Array:
    shape = tuple(size_of(dim, sizes) for dim in spec.shape)
    # A draw for each name: adding an input leaves the others as they are.
    generator = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
    floating = spec.dtype.kind == "f"
    if spec.example is not None and spec.exact:
        return _tiled(spec.example, shape)
    if spec.example is not None and _says_something(spec.example, floating):
        tiled = _tiled(spec.example, shape)
        return (tiled * (1 + 0.1 * _steps(shape))).astype(spec.dtype) if floating and shape else tiled
    if floating:
        drawn = generator.standard_normal(shape)
        if shape:
            drawn = drawn * (1 + 0.1 * _steps(shape)) + 0.1 * _steps(shape)
        return np.asarray(drawn * spec.scale).astype(spec.dtype)
    return np.asarray(generator.integers(0, max(spec.below, 1), shape)).astype(spec.dtype)


def _says_something(example: Array, floating: bool) -> bool:
    """Whether an example's values matter: zeros stand for anything, as do ones for numbers."""
    if example.ndim == 0:
        return True
    return bool(np.any(example != example.flat[0]) if floating and example.size else np.any(example))


def _steps(shape: tuple[int, ...]) -> Array:
    return np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))


def _tiled(example: Array, shape: tuple[int, ...]) -> Array:
    """The example repeated to fill the shape, each sample moved on by one position."""
    if example.shape == shape or not shape:
        return example
    filled = np.resize(example, shape)
    return np.stack([np.roll(row, at, axis=-1) if row.ndim else row for at, row in enumerate(filled)])
