"""Exported programs, as `.pt2` files hold them.

A `.pt2` file is an archive of a graph in JSON, weights, and pickled example inputs; torch
unpickles whatever is in there, and reads symbolic sizes with an evaluator of Python. Both
would run the code of whoever wrote the file. So files are read with tensors alone allowed
and formulas of sizes alone, unless their author is trusted.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx

from dnnsplit_onnx.converters import torch_export
from dnnsplit_onnx.converters.adapter import BATCH, Adapter, Array, Feeds, InputSpec
from dnnsplit_onnx.converters.extras import versions
from dnnsplit_onnx.converters.nesting import flatten, rebuild
from dnnsplit_onnx.converters.reasons import reason
from dnnsplit_onnx.errors import InputError

# What a size is written with, as sympy prints it: `Add(Symbol('s77', integer=True), Integer(1))`.
_SYMPY = frozenset(
    [
        "Symbol",
        "Integer",
        "Float",
        "Rational",
        "Add",
        "Mul",
        "Pow",
        "Max",
        "Min",
        "Mod",
        "Abs",
        "Eq",
        "Ne",
        "Equality",
        "Unequality",
        "And",
        "Or",
        "Not",
        "StrictLessThan",
        "LessThan",
        "StrictGreaterThan",
        "GreaterThan",
        "Lt",
        "Le",
        "Gt",
        "Ge",
        "Piecewise",
    ]
)
_FORMULA = (
    ast.Expression, ast.Call, ast.keyword, ast.Constant, ast.Name, ast.Load, ast.UnaryOp, ast.BinOp,
    ast.Compare, ast.operator, ast.unaryop, ast.cmpop, ast.Tuple,
)  # fmt: skip
_SYMBOL = re.compile(r"[A-Za-z]{1,3}\d+|int_oo|oo|true|false")
_TEXT = re.compile(r"[\w.+-]{1,64}")
_UNSAFE = "may run code of its author's: it holds more than a graph and tensors"


class ExportedProgram(Adapter):
    """A program that `torch.export` made, such as a `.pt2` file holds.

    Its open dimensions are those it was exported with. Where all inputs start with one and
    the same of them, that is `batch`.

    Raises:
        InputError: The program carries no example inputs.
    """

    route = "pytorch"

    def __init__(self, program: Any) -> None:
        if program.example_inputs is None:
            raise InputError("the exported program carries no example inputs", hint="export it again")
        self.program = program
        self.arguments, self.keywords = program.example_inputs
        flat = dict(flatten({**dict(enumerate(self.arguments)), **self.keywords}, ""))
        placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
        names = program.graph_signature.user_inputs
        shapes = {name: tuple(placeholders[name].meta["val"].shape) for name in names}
        leading = {str(shape[0]) for shape in shapes.values() if shape and not isinstance(shape[0], int)}
        batch = leading.pop() if len(leading) == 1 else None

        def named(dim: Any) -> int | str:
            return dim if isinstance(dim, int) else BATCH if str(dim) == batch else str(dim)

        self.inputs = tuple(
            InputSpec(name, tensor.numpy().dtype, tuple(map(named, shapes[name])), example=tensor.numpy())
            for name, tensor in zip(names, flat.values(), strict=True)
        )
        self.limits = {
            BATCH if str(symbol) == batch else str(symbol): (
                _number(limit.lower, 1),
                _number(limit.upper, 1 << 30),
            )
            for symbol, limit in program.range_constraints.items()
        }
        self._paths = dict(zip(names, flat, strict=True))
        self.layers = 0  # a program is flat
        self.parameters = sum(value.numel() for value in program.state_dict.values())
        self.precision = torch_export.precision(program.state_dict.values())
        self.notes = []

    def versions(self) -> dict[str, str]:
        """Versions of the libraries of this route."""
        return versions("torch", "onnxscript", "onnx", "onnxruntime")

    def run(self, feeds: Feeds) -> list[Array]:
        """What the program computes."""
        import torch

        tensors = {self._paths[name]: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
        nested = rebuild({**dict(enumerate(self.arguments)), **self.keywords}, "", tensors)
        positional = [nested.pop(at) for at in range(len(self.arguments))]
        with torch.no_grad():
            result = self.program.module()(*positional, **nested)
        result = [result] if isinstance(result, torch.Tensor) else result
        values = dict(enumerate(result)) if isinstance(result, Sequence) else result
        return [value.detach().numpy() for _, value in flatten(values, "")]

    def export(self, path: Path, feeds: Feeds) -> None:
        """Writes the program as ONNX. See `Adapter.export`."""
        del feeds  # it has been traced
        torch_export.run_exporter(
            path, self.program, (), [spec.name for spec in self.inputs], None, opset_version=self.opset
        )

    def layer_of(self, node: onnx.NodeProto) -> str | None:
        """The path of the module that a node came from."""
        return torch_export.module_path(node)


def _number(bound: Any, unknown: int) -> int:
    """A bound of a size; some are infinite."""
    try:
        return int(bound)
    except (AttributeError, OverflowError, TypeError, ValueError):
        return unknown


def load_program(path: Path, trust: bool) -> Any:
    """Loads a `.pt2` file.

    Args:
        path: The file.
        trust: Whether code in it may run.

    Raises:
        InputError: It is not an exported program, or holds code and is not trusted.
    """
    import torch

    try:
        with ExitStack() as stack:
            if not trust:
                stack.enter_context(_tensors_only())
            return torch.export.load(path)
    except Exception as error:  # anything can be wrong with a file
        if not trust and _refused(error):
            raise InputError(
                f"`{path}` {_UNSAFE}",
                hint="if you know where it comes from, pass --trust; its own author can export it again",
            ) from error
        raise InputError(
            f"torch cannot load `{path}` as an exported program: {reason(error)}",
            hint="torch.export.save makes one; a pickled module goes through package.module:function",
        ) from error


def _refuse_code(text: str, functions: Mapping[str, Any]) -> None:
    """Makes sure that a size is a formula: sympy evaluates whatever Python it is given.

    Raises:
        _RefusedError: It is something else.
    """
    callable_names = _SYMPY | {name for name, value in functions.items() if isinstance(value, type)}
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise _RefusedError(f"a size that is no formula: {text[:40]}") from error
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        fine = isinstance(node, _FORMULA)
        if isinstance(node, ast.Name):
            fine = node.id in callable_names if id(node) in called else bool(_SYMBOL.fullmatch(node.id))
        elif isinstance(node, ast.Call):
            fine = isinstance(node.func, ast.Name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            fine = bool(_TEXT.fullmatch(node.value))
        if not fine:
            raise _RefusedError(f"a size that is no formula: {text[:40]}")


class _RefusedError(Exception):
    """Something in a file would have run code."""


def _refused(error: BaseException | None) -> bool:
    """Whether an error comes from a refusal; torch wraps them."""
    import pickle

    while error is not None:
        if isinstance(error, _RefusedError | pickle.UnpicklingError):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _tensors_only() -> Iterator[None]:
    """The loader of torch, with all that it unpickles held to tensors, and all sizes to formulas."""
    import sympy
    import torch
    from torch._export.serde import serialize
    from torch.export.pt2_archive import _package

    load, sympify = torch.load, sympy.sympify

    def load_tensors(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **{**kwargs, "weights_only": True})

    def formula(text: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(text, str):
            _refuse_code(text, kwargs.get("locals", {}))
        return sympify(text, *args, **kwargs)

    def refuse(*_: Any, **__: Any) -> Any:
        raise _RefusedError("a pickled object")

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch, "load", load_tensors))
        stack.enter_context(mock.patch.object(torch._C, "_pickle_load_obj", refuse))
        stack.enter_context(mock.patch.object(serialize.sympy, "sympify", formula))
        stack.enter_context(mock.patch.object(_package.pickle, "loads", refuse))
        yield
