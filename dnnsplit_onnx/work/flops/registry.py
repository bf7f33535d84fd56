"""The one registry: (domain, operator) -> formula.

To count an operator of your own, register a formula for it before counting:

    from dnnsplit_onnx.work.flops import NodeView, Work, register

    @register("ScaledAdd", domain="com.example")
    def scaled_add(node: NodeView) -> Work:
        return Work(elementwise=2 * node.output_size())

A package can bring formulas for whoever installs it: its entry points in `dnnsplit_onnx.flops` name
modules that do the same, which are imported once an operator without a formula is met.

A formula asks its `NodeView` for the shapes, attributes and constants that it needs. Where one of
them is unknown the view raises, and the node is uncounted: an unknown is never a zero.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import onnx

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.plugins import is_same_definition, load_all
from dnnsplit_onnx.work.flops.types import Context
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork
from dnnsplit_onnx.work.flops.work import Work

Formula = Callable[[NodeView], Work]

MICROSOFT = "com.microsoft"
ML = "ai.onnx.ml"
PREVIEW = "ai.onnx.preview"
TRAINING = "ai.onnx.preview.training"
NCHWC = "com.microsoft.nchwc"
NHWC = "com.ms.internal.nhwc"

_FORMULAS: dict[tuple[str, str], Formula] = {}


def _canonical(domain: str) -> str:
    """The default domain has two spellings."""
    return "" if domain == "ai.onnx" else domain


def register(*op_types: str, domain: str = "", replace: bool = False) -> Callable[[Formula], Formula]:
    """Register a formula for operators of one domain; use it as a decorator.

    Args:
        op_types: The operators that the formula counts.
        domain: Their domain; the default ONNX domain if not given.
        replace: Allow a formula that exists to be replaced.

    Raises:
        InputError: An operator has another formula already, and `replace` is not set. The same
            function, defined again as a notebook's cell is run again, takes its own place.
    """

    def add(formula: Formula) -> Formula:
        for op_type in op_types:
            key = (_canonical(domain), op_type)
            before = _FORMULAS.get(key)
            if before is not None and not replace and not is_same_definition(before, formula):
                raise InputError(
                    f"operator `{op_type}` of domain `{key[0] or 'ai.onnx'}` has a formula already",
                    hint="register(..., replace=True) takes its place",
                )
            _FORMULAS[key] = formula
        return formula

    return add


def count_node(node: onnx.NodeProto, context: Context) -> Work | None:
    """Count the work of one execution of a node.

    Args:
        node: The node; calls of model-local functions have been inlined.
        context: What is known about the values around it, after shape inference.

    Returns:
        The work, or None if it is not known: no formula for the operator, or a shape or value that
        the formula needs is unknown. Data movement is known to be `Work(0, 0)`.
    """
    key = (_canonical(node.domain), node.op_type)
    if key not in _FORMULAS:
        _load_plugins()
    formula = _FORMULAS.get(key)
    if formula is None:
        return None
    try:
        work = formula(NodeView(node, context))
    except UnknownWork:
        return None
    # Only a node that breaks its schema (a negative window) counts to less than nothing.
    return work if work.macs >= 0 and work.elementwise >= 0 else None


@cache
def _load_plugins() -> None:
    """Imports the formulas of other packages, once."""
    for _ in load_all("dnnsplit_onnx.flops"):
        pass  # a module registers its formulas itself


def counted_ops() -> frozenset[tuple[str, str]]:
    """The (domain, operator) pairs that have a formula."""
    return frozenset(_FORMULAS)
