"""Operators of onnxruntime's own data layouts, as files hold them that it optimised and saved.

`com.microsoft.nchwc` blocks the channels of an image, padded to whole blocks; `com.ms.internal.nhwc`
puts them last. The shapes there are those that the kernels work on, so what is padded counts as work:
the machine does it.
"""

from __future__ import annotations

from dnnsplit_onnx.work.flops.convolution import conv, conv_transpose, fused_conv
from dnnsplit_onnx.work.flops.image import resize
from dnnsplit_onnx.work.flops.movement import movement
from dnnsplit_onnx.work.flops.pooling import (
    average_pool,
    channels,
    global_average_pool,
    global_max_pool,
    lp_pool,
    max_pool,
)
from dnnsplit_onnx.work.flops.registry import NCHWC, NHWC, register
from dnnsplit_onnx.work.flops.view import NodeView
from dnnsplit_onnx.work.flops.work import Work

# A fourth input is the tensor that is added before the activation, as in FusedConv.
register("Conv", domain=NCHWC)(fused_conv)
register("MaxPool", domain=NCHWC)(max_pool)
register("AveragePool", domain=NCHWC)(average_pool)
register("GlobalMaxPool", domain=NCHWC)(global_max_pool)
register("GlobalAveragePool", domain=NCHWC)(global_average_pool)
register("Upsample", domain=NCHWC)(resize)
register("ReorderInput", "ReorderOutput", domain=NCHWC)(movement)

register("Conv", domain=NHWC)(conv)
register("ConvTranspose", domain=NHWC)(conv_transpose)
register("MaxPool", domain=NHWC)(max_pool)
register("AveragePool", domain=NHWC)(average_pool)
register("LpPool", domain=NHWC)(lp_pool)
register("GlobalMaxPool", domain=NHWC)(global_max_pool)
register("Resize", domain=NHWC)(resize)
register("DepthToSpace", "SpaceToDepth", "MaxUnpool", domain=NHWC)(movement)


@register("GlobalAveragePool", domain=NHWC)
def global_average_pool_nhwc(node: NodeView) -> Work:
    """GlobalAveragePool, channels last: an addition per input element and a division per channel."""
    return Work(elementwise=node.input_size(0) + channels(node, axis=-1))
