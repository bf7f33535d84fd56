"""Analytic work of ONNX operators: MACs and element-wise operations of one execution of a node.

FLOPs are 2 x MACs plus one per element-wise operation; `work` defines the unit, each formula's docstring
says what its operator counts, and `registry` shows how to add an operator.

What holds for all of them. MACs are the multiply-adds of contractions alone: convolutions, matrix
products, Einsum, recurrent layers, attention, and the dot products of linear and support vector models.
A bias, a normalisation, pooling, interpolation or FFT is element-wise, whether or not a machine fuses its
multiplications and additions. A fused operator costs what its definition writes down. Where work depends
on data, a formula takes the most that the shapes allow, and says so; where it depends on something
unknown, the node is uncounted, which is not zero. Moving data is zero.
"""

from __future__ import annotations

# The families register their formulas when they are imported.
from dnnsplit_onnx.work.flops import (  # noqa: F401
    attention,
    contrib_attention,
    contrib_experts,
    contrib_fused,
    contrib_packed,
    control,
    convolution,
    einsum,
    elementwise,
    image,
    layouts,
    matmul,
    ml,
    movement,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    sampling,
    signal,
    sorting,
    training,
    trees,
)
from dnnsplit_onnx.work.flops.registry import Formula, count_node, counted_ops, register
from dnnsplit_onnx.work.flops.scope import GraphContext
from dnnsplit_onnx.work.flops.types import Context, TensorType
from dnnsplit_onnx.work.flops.uncounted import uncounted_reasons
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork
from dnnsplit_onnx.work.flops.work import Work

__all__ = [
    "Context",
    "Formula",
    "GraphContext",
    "NodeView",
    "TensorType",
    "UnknownWork",
    "Work",
    "count_node",
    "counted_ops",
    "register",
    "uncounted_reasons",
]
