"""Operators that move, store or reinterpret data: known to be no arithmetic, so zero and not unknown.

Cast, CastLike and BitCast are among them: a conversion changes how a number is written, not the number.
(Rounding to an integer grid with a scale is arithmetic; that is QuantizeLinear.) So are lookups in
tables (LabelEncoder, CategoryMapper, Gather) and index arithmetic.
"""

from __future__ import annotations

from dnnsplit_onnx.work.flops.registry import MICROSOFT, ML, register
from dnnsplit_onnx.work.flops.view import NodeView
from dnnsplit_onnx.work.flops.work import Work

_NOTHING = Work()


@register("Cast", "CastLike", "BitCast")
@register("Constant", "ConstantOfShape", "EyeLike", "OneHot", "Identity", "Shape", "Size")
@register("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile")
@register("Concat", "Split", "Slice", "Pad", "CenterCropPad", "Compress", "ReverseSequence", "Trilu")
@register("Gather", "GatherElements", "GatherND", "Scatter", "TensorScatter")
@register("DepthToSpace", "SpaceToDepth", "MaxUnpool")
@register(
    "SequenceConstruct", "SequenceEmpty", "SequenceAt", "SequenceInsert", "SequenceErase", "SequenceLength"
)
@register("SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement")
@register("StringConcat")
@register(
    "ArrayFeatureExtractor", "CastMap", "CategoryMapper", "DictVectorizer", "FeatureVectorizer", domain=ML
)
@register("LabelEncoder", "OneHotEncoder", "ZipMap", domain=ML)
@register("ExpandDims", "GatherND", "Pad", "Trilu", "UnfoldTensor", domain=MICROSOFT)
@register("RemovePadding", "RestorePadding", "RelativePositionBias", "TorchEmbedding", domain=MICROSOFT)
def movement(node: NodeView) -> Work:  # noqa: ARG001 - the interface of a formula
    """Data movement: no arithmetic, whatever the shapes."""
    return _NOTHING


@register("ScatterElements", "ScatterND")
def scatter(node: NodeView) -> Work:
    """ScatterElements, ScatterND: one per update if it is reduced (add, mul, min, max), else nothing."""
    if node.text_attribute("reduction", "none") == "none":
        return _NOTHING
    return Work(elementwise=node.input_size(2))


@register("Col2Im")
def col2im(node: NodeView) -> Work:
    """Col2Im: every input element is added to the image once."""
    return Work(elementwise=node.input_size(0))
