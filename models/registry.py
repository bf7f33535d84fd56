"""The zoo's table: what each model is, what it weighs, and how it is made.

The figures are recorded so that listing costs nothing; a test recomputes every one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the zoo.

    Attributes:
        name: What it is called in `zoo:NAME`.
        summary: What it is, in a few words.
        source: Where it comes from.
        requires: What must be installed to make it, "" if nothing beyond the package.
        nodes: Data-flow nodes, as `inspect` counts them.
        macs: Multiply-adds for one input.
        weight_nbytes: Bytes of its weights.
        file: Finds the file that holds it, for a model that need not be built.
        build: Builds it, for one that must be.
    """

    name: str
    summary: str
    source: str
    requires: str
    nodes: int
    macs: int
    weight_nbytes: int
    file: Callable[[], Path] | None = None
    build: Callable[[], onnx.ModelProto] | None = None


class _Row(NamedTuple):
    """What the entries of a topology share: title, data-flow nodes, MACs, bytes of weights."""

    title: str
    nodes: int
    macs: int
    weight_nbytes: int


_LIGHT = {
    "bvlc_alexnet": _Row("AlexNet", 24, 654_560_384, 243_860_912),
    "densenet121": _Row("DenseNet-121", 668, 2_834_161_664, 32_584_608),
    "inception_v1": _Row("Inception v1 (GoogLeNet)", 143, 1_431_556_352, 27_994_224),
    "inception_v2": _Row("Inception v2", 371, 2_018_851_840, 44_939_184),
    "resnet50": _Row("ResNet-50", 176, 4_089_184_256, 102_440_624),
    "shufflenet": _Row("ShuffleNet", 203, 124_664_528, 5_681_776),
    "squeezenet": _Row("SqueezeNet", 66, 349_151_936, 4_941_984),
    "vgg19": _Row("VGG-19", 46, 19_632_062_464, 574_668_976),
    "zfnet512": _Row("ZFNet-512", 22, 1_481_727_008, 349_002_160),
}

# By the name of the entry: the builder in `small` or `decoder`, and the row.
_SMALL = {
    "tiny_residual": ("residual_cnn", _Row("three residual blocks", 24, 12_501_632, 310_824)),
    "tiny_squeeze_excite": (
        "squeeze_excite_cnn",
        _Row("three squeeze-excite blocks", 31, 1_993_088, 109_264),
    ),
    "tiny_transformer": ("transformer", _Row("two transformer blocks", 65, 2_425_472, 279_396)),
    "tiny_decoder": ("decoder", _Row("three decoder blocks with caches", 116, 103_168, 500_836)),
}


def _light_file(name: str) -> Path:
    from dnnsplit_onnx.models.light import light_file

    return light_file(name)


def _randomised(name: str) -> onnx.ModelProto:
    from dnnsplit_onnx.models.light import randomised

    return randomised(name)


def _small(builder: str) -> onnx.ModelProto:
    from dnnsplit_onnx.models import decoder, small

    room = decoder if hasattr(decoder, builder) else small
    model: onnx.ModelProto = getattr(room, builder)()
    return model


def _table() -> dict[str, Entry]:
    rows = []
    for name, row in _LIGHT.items():
        light = f"light_{name}"
        summary = f"{row.title}, every weight 0.02"
        rows.append(Entry(light, summary, "onnx package", "", *row[1:], file=partial(_light_file, light)))
    for name, row in _LIGHT.items():
        summary = f"{row.title}, seeded random weights"
        build = partial(_randomised, f"light_{name}")
        rows.append(Entry(f"random_{name}", summary, "onnx package, built", "", *row[1:], build=build))
    for name, (builder, row) in _SMALL.items():
        rows.append(Entry(name, row.title, "built", "", *row[1:], build=partial(_small, builder)))
    return {row.name: row for row in rows}


#: Every model of the zoo, by name.
ENTRIES: dict[str, Entry] = _table()
