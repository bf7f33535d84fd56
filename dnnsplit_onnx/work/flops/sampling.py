"""Random generators: a draw is one operation, whatever the algorithm behind it."""

from __future__ import annotations

from dnnsplit_onnx.work.flops.elementwise import per_result
from dnnsplit_onnx.work.flops.registry import register
from dnnsplit_onnx.work.flops.view import NodeView
from dnnsplit_onnx.work.flops.work import Work

# Draw, scale, shift.
register("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")(per_result(3))
register("Bernoulli")(per_result(2))  # draw, compare


@register("Multinomial")
def multinomial(node: NodeView) -> Work:
    """Multinomial: exp, sum, divide per class; per sample a draw and a comparison with each class."""
    batch, classes = node.input_shape(0, 2)
    samples = node.int_attribute("sample_size", 1)
    return Work(elementwise=batch * (3 * classes + samples * (1 + classes)))
