"""Optimisers of ai.onnx.preview.training: one update of every parameter, by the operator's definition."""

from __future__ import annotations

from dnnsplit_onnx.work.flops.registry import TRAINING, register
from dnnsplit_onnx.work.flops.view import NodeView, exact_division
from dnnsplit_onnx.work.flops.work import Work


@register("Momentum", domain=TRAINING)
def momentum(node: NodeView) -> Work:
    """Momentum: regularised gradient (2), `alpha * V + beta * G` (3), the step (2; Nesterov 4)."""
    nesterov = node.text_attribute("mode", "standard") == "nesterov"
    return Work(elementwise=_parameters(node, per_parameter=3) * (9 if nesterov else 7))


@register("Adagrad", domain=TRAINING)
def adagrad(node: NodeView) -> Work:
    """Adagrad: regularised gradient (2), `H + G * G` (2), `sqrt(H) + epsilon` (2), the step (3)."""
    return Work(elementwise=_parameters(node, per_parameter=3) * 9)


@register("Adam", domain=TRAINING)
def adam(node: NodeView) -> Work:
    """Adam: regularised gradient (2), V (3), H (4), `sqrt(H) + epsilon` (2), the step (3), decay (1)."""
    return Work(elementwise=_parameters(node, per_parameter=4) * 15)


def _parameters(node: NodeView, per_parameter: int) -> int:
    """Elements of the parameters: inputs are the rate, the count, then parameters and their states."""
    tensors = exact_division(len(node.node.input) - 2, per_parameter)
    return sum(node.input_size(2 + index) for index in range(tensors))
