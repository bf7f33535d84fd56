"""Inputs for a model: made up from a seed, or read from a file.

Made-up values are chosen so that models run and their outputs vary: normal numbers for
floats, 0 or 1 for the integers that may be indices (any embedding has two rows), the full
range for bytes (images). Where a model asks for more, its user has to give the inputs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.dimensions import is_name, open_names, size_of
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.runtime.archive import read_arrays
from dnnsplit_onnx.runtime.pictures import (
    Picture,
    as_picture,
    decoded,
    is_of_pictures,
    load_pictures,
    sent,
)
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.values import Value, to_value

_FLOATS = ("float", "double", "bfloat16")  # and whatever starts with `float`
# Masks of what is text and what is padding; other masks may mean the opposite.
_MASK = re.compile(r"(^|[._])(attention|input)_?mask", re.IGNORECASE)
_GIVE = "give the inputs: --input X.npz"
_SAVE = "write one with numpy.savez(path, NAME=array)"
# A made-up input of more elements is a mistake in the model or a binding.
_MOST_ELEMENTS = 1 << 32


@dataclass(frozen=True)
class Inputs:
    """Values for all inputs of a model.

    Attributes:
        values: By name, as `values.to_value` takes them.
        source: "generated", "given", or the path of the file.
        assumed: Dimensions that nothing says the size of, and the size they got.
    """

    values: dict[str, Any]
    source: str
    assumed: dict[str, int] = field(default_factory=dict)


def generate(
    ports: Sequence[Port],
    bindings: Mapping[str, int] | None = None,
    *,
    seed: int = 0,
    most: int = _MOST_ELEMENTS,
) -> Inputs:
    """Makes up inputs: the same for the same ports, bindings and seed.

    Args:
        ports: What the model reads.
        bindings: Sizes of symbolic dimensions; a dimension without a name is called
            `INPUT.AXIS`. Others get the size 1.
        seed: Of the random numbers.
        most: Elements of the largest input.

    Raises:
        InputError: An input is too large, or of a type for which nothing sensible can be made up.
    """
    rng = np.random.default_rng(seed)
    bindings = bindings or {}
    values: dict[str, Any] = {}
    assumed: dict[str, int] = {}
    for port in ports:
        if port.kind == "optional":
            values[port.name] = None
            continue
        if port.kind != "tensor":
            raise InputError(f"cannot make up input `{port.name}`: it is a {port.kind}", hint=_GIVE)
        if port.dtype is None or port.shape is None:
            what = "type" if port.dtype is None else "rank"
            raise InputError(f"cannot make up input `{port.name}`: its {what} is unknown", hint=_GIVE)
        values[port.name] = _array(rng, port, _sizes(port, bindings, assumed, most))
    return Inputs(values, "generated", assumed)


def load_inputs(path: str | Path, ports: Sequence[Port]) -> Inputs:
    """Reads inputs from an `.npz` file and holds them against what the model reads.

    The tensors of a sequence `NAME` are called `NAME/0`, `NAME/1` and so on. Types that
    numpy lacks (bfloat16, ...) are recognised by their size. An optional input may be left out.

    Args:
        path: The file, as `numpy.savez` writes it.
        ports: What the model reads.

    Raises:
        InputError: The file cannot be read, or an input is missing, unknown, or of
            another type or shape.
    """
    return Inputs(check_inputs(load_arrays(path), ports, where=f"in {path}"), str(path))


def load_arrays(path: str | Path) -> dict[str, Any]:
    """The arrays of an `.npz` file, by name.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:  # given a path, numpy leaves a broken archive open
            return read_arrays(file, str(path))
    except FileNotFoundError:
        raise InputError(f"no such file: `{path}`", hint=_SAVE) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read inputs from `{path}`: {error}", hint=_SAVE) from None


def check_inputs(
    arrays: Mapping[str, Any],
    ports: Sequence[Port],
    *,
    where: str | None = None,
) -> dict[str, Any]:
    """Holds inputs against what a model reads.

    A name of a dimension that they give unequal sizes is no fault here: exporters write `?`, and names
    that stand for several things, and onnxruntime takes what runs. See `disagreements`.

    Args:
        arrays: By name; the tensors of a sequence either as a list or as `NAME/0`, `NAME/1`; a
            picture as its path, or as its file's bytes.
        ports: What the model reads.
        where: Where they come from, for errors.

    Raises:
        InputError: An input is missing, unknown, or of another type or shape.
    """
    left = dict(arrays)
    checked: dict[str, Any] = {}
    try:
        for port in ports:
            data = _take(left, port)
            if _is_as_read(data, port):  # most are, and each step of a text has some
                checked[port.name] = data
                continue
            data = as_picture(data, port)
            if isinstance(data, Picture):
                checked[port.name] = sent(data, port)
            elif isinstance(data, list):
                checked[port.name] = [_typed(np.asarray(item), port) for item in data]
            elif data is not None:
                checked[port.name] = _shaped(_typed(np.asarray(data), port), port)
            elif port.kind == "optional":
                checked[port.name] = None
            else:
                raise InputError(f"input `{port.name}` is missing", hint=_expected(ports))
        if left:
            raise InputError(f"unknown input `{next(iter(left))}`", hint=_expected(ports))
    except InputError as error:
        error.context = error.context or where
        raise
    return checked


def _sizes(port: Port, bindings: Mapping[str, int], assumed: dict[str, int], most: int) -> tuple[int, ...]:
    sizes = []
    for axis, dim in enumerate(port.shape or ()):
        size = size_of(dim, port.name, axis, bindings)
        if size is None:
            assumed.update(dict.fromkeys(open_names(dim, port.name, axis, bindings), 1))
            size = size_of(dim, port.name, axis, {**assumed, **bindings})
        sizes.append(1 if size is None or size < 0 else size)
    elements = 1
    for size in sizes:
        elements *= size
    if elements > most:
        raise InputError(f"input `{port.name}` of shape {tuple(sizes)} is too large to make up", hint=_GIVE)
    return tuple(sizes)


def _array(rng: np.random.Generator, port: Port, shape: tuple[int, ...]) -> np.ndarray:
    dtype = port.dtype or ""
    if _MASK.search(port.name) and dtype != "string":
        return np.ones(shape, dtype=numpy_dtype(port))  # all is there, as in a text without padding
    if dtype == "string":
        return np.array([f"s{n}" for n in rng.integers(0, 10, size=shape).reshape(-1)], object).reshape(shape)
    wanted = numpy_dtype(port)
    if dtype == "bool":
        return rng.integers(0, 2, size=shape).astype(bool)
    if dtype.startswith("complex"):
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(wanted)
    if dtype in _FLOATS or dtype.startswith("float"):
        # numpy returns a plain float for the shape ().
        return np.asarray(rng.standard_normal(shape, dtype=np.float32)).astype(wanted)
    return np.asarray(_integers(rng, dtype, shape)).astype(wanted)


def _integers(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Any:
    """Whole numbers that are safe for what inputs of this type are used for."""
    if dtype == "uint8":
        return rng.integers(0, 256, size=shape)
    if dtype == "int8":
        return rng.integers(-128, 128, size=shape)
    if dtype in {"int32", "int64", "uint32", "uint64"}:
        # Indices, masks, lengths. A single number is often a count (of steps, of the top
        # k), and nothing comes of a count of 0.
        return np.ones(shape) if np.prod(shape) == 1 else rng.integers(0, 2, size=shape)
    return rng.integers(0, 2, size=shape) if "2" in dtype else rng.integers(0, 8, size=shape)


def numpy_dtype(port: Port) -> np.dtype[Any]:
    """The type of the arrays that an input is made of.

    Raises:
        InputError: There is no such type.
    """
    try:
        return _dtype(port.dtype or "")
    except (KeyError, ValueError):
        raise InputError(f"input `{port.name}` is of the unknown type `{port.dtype}`") from None


@cache
def _dtype(name: str) -> np.dtype[Any]:
    return helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(name.upper()))


def _is_as_read(data: Any, port: Port) -> bool:
    """Whether this is an array of the very type and shape that a tensor is read in."""
    if type(data) is not np.ndarray or port.kind != "tensor" or port.shape is None:
        return False
    if port.dtype in (None, "string") or data.dtype != numpy_dtype(port):
        return False
    return port.takes(data.shape)


def _take(left: dict[str, Any], port: Port) -> Any:
    """Takes an input out of what is left; a sequence may lie there in pieces."""
    if port.name in left or port.kind != "sequence":
        return left.pop(port.name, None)
    items: list[Any] = []
    while (key := f"{port.name}/{len(items)}") in left:
        items.append(left.pop(key))
    return items or None


def _typed(array: np.ndarray, port: Port) -> np.ndarray:
    if port.dtype is None:
        return array
    if port.dtype == "string":
        if array.dtype.kind not in "OSU":
            raise _wrong_type(array, port, "str")
        return array.astype(object)
    wanted = numpy_dtype(port)
    if array.dtype.newbyteorder("=") == wanted:
        return array.astype(wanted, copy=False)
    if wanted.kind == "V" or wanted.name not in np.sctypeDict:
        # numpy writes what it does not know as raw bytes (void).
        if array.dtype.kind == "V" and array.dtype.itemsize == wanted.itemsize:
            return array.view(wanted)
        raise _wrong_type(array, port, f"{wanted.name}, saved from an ml_dtypes array")
    raise _wrong_type(array, port, wanted.name)


def _wrong_type(array: np.ndarray, port: Port, wanted: str) -> InputError:
    hint = None if port.dtype == "string" else f"convert it: array.astype('{wanted}')"
    return InputError(f"input `{port.name}` is of type {array.dtype}, the model reads {wanted}", hint=hint)


def _shaped(array: np.ndarray, port: Port) -> np.ndarray:
    """Holds the shape against the port's."""
    if port.shape is None or port.kind != "tensor" or port.takes(array.shape):
        return array
    wanted = ", ".join(str(dim) if dim is not None else "?" for dim in port.shape)
    wrong = f"input `{port.name}` has the shape {array.shape}, the model reads ({wanted})"
    if array.ndim != len(port.shape):
        raise InputError(wrong)
    for axis, (size, dim) in enumerate(zip(array.shape, port.shape, strict=True)):
        if isinstance(dim, int) and size != dim:
            raise InputError(wrong, context=f"axis {axis} must be {dim}")
    raise AssertionError("another rank, or another size of an axis")


def disagreements(ports: Sequence[Port], arrays: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of dimensions that inputs give unequal sizes, each as a phrase.

    Args:
        ports: What the model reads.
        arrays: Inputs that `check_inputs` let pass.
    """
    sizes: dict[str, tuple[int, str]] = {}
    found: dict[str, str] = {}
    for port in ports:
        shape = np.shape(arrays[port.name]) if isinstance(arrays.get(port.name), np.ndarray) else ()
        for dim, size in zip(port.shape or (), shape, strict=False):
            if isinstance(dim, str) and is_name(dim):
                first, where = sizes.setdefault(dim, (size, port.name))
                if first != size:
                    found.setdefault(
                        dim, f"`{dim}` is {first} in input `{where}` and {size} in `{port.name}`"
                    )
    return tuple(found.values())


def _expected(ports: Sequence[Port]) -> str:
    """The line that says what the model reads."""
    described = []
    for port in ports:
        shape = "" if port.shape is None else "[" + ",".join(str(d or "?") for d in port.shape) + "]"
        described.append(f"`{port.name}` {port.dtype or port.kind}{shape}")
    return f"the model reads {', '.join(described)}" if described else "the model reads no inputs"


def input_sets(
    ports: Sequence[Port],
    inputs: Mapping[str, Any] | str | Path | None,
    bindings: Mapping[str, int],
    *,
    seed: int,
    runs: int,
) -> list[Inputs]:
    """The inputs to run on: those given, or `runs` sets of made-up ones.

    Args:
        ports: What the model reads.
        inputs: Arrays by name, an `.npz` file, a picture or a folder of them (`pictures`), or None.
        bindings: Sizes of symbolic dimensions, for made-up inputs.
        seed: Of the first made-up set; the others follow it.
        runs: How many sets to make up, at least 1.

    Raises:
        InputError: The inputs given do not fit, or none can be made up.
    """
    if inputs is None:
        return [generate(ports, bindings, seed=seed + at) for at in range(max(1, runs) if ports else 1)]
    if isinstance(inputs, str | Path):
        if is_of_pictures(inputs):
            return [Inputs(decoded(values), name) for values, name in load_pictures(inputs, ports)]
        return [load_inputs(inputs, ports)]
    return [Inputs(check_inputs(inputs, ports), "given")]


def to_values(ports: Sequence[Port], inputs: Mapping[str, Any]) -> dict[str, Value]:
    """Inputs as values of onnxruntime.

    Raises:
        InputError: An input is missing or unknown, or has a type that onnxruntime lacks.
    """
    ort = runtime()
    known = {port.name: port for port in ports}
    for name in inputs:
        if name not in known:
            raise InputError(f"unknown input `{name}`", hint=f"the inputs are {listed_names(known)}")
    for name, port in known.items():
        if name not in inputs and port.kind != "optional":
            raise InputError(f"input `{name}` is missing", hint=f"the inputs are {listed_names(known)}")
    given = decoded({name: as_picture(inputs.get(name), port) for name, port in known.items()})
    return {name: to_value(ort, given[name], port.dtype) for name, port in known.items()}


def listed_names(names: Collection[str]) -> str:
    """Names in a sentence."""
    return ", ".join(f"`{name}`" for name in names) or "none"
