"""The part of the zoo that Keras and PyTorch build: the same columns, other builders.

    entry = FRAMEWORK_ENTRIES["keras_resnet50"]
    model = entry.build()

These become ONNX through `dnnsplit_onnx.converters`, which takes them as `zoo:NAME`. The
figures are recorded so that listing costs nothing; `scripts/bench/convert` recomputes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Literal, NamedTuple

from dnnsplit_onnx.errors import MissingExtraError

Framework = Literal["keras", "pytorch"]

# The extras of the package that each source needs, in the order in which pip takes them.
_KERAS: tuple[str, ...] = ("keras",)
_TENSORFLOW: tuple[str, ...] = ("keras-tf",)
_TORCH: tuple[str, ...] = ("pytorch",)
_TRANSFORMERS: tuple[str, ...] = ("pytorch", "zoo")


@dataclass(frozen=True, slots=True)
class FrameworkEntry:
    """A model of the zoo that a framework builds.

    Attributes:
        name: What it is called in `zoo:NAME`.
        summary: What it is, in a few words.
        source: Where its code comes from.
        framework: `keras` or `pytorch`.
        extras: Extras of this package that it needs.
        layers: Layers of the framework's model (Keras: `len(model.layers)`; PyTorch:
            modules without modules inside).
        parameters: Elements of its weights, running statistics included for Keras.
        nodes: Data-flow nodes of the converted model.
        macs: Multiply-adds for one input.
        build: Builds it; returns what `convert` takes as a live model.
    """

    name: str
    summary: str
    source: str
    framework: Framework
    extras: tuple[str, ...]
    layers: int
    parameters: int
    nodes: int
    macs: int
    build: Callable[[], Any]

    @property
    def requires(self) -> str:
        """What must be installed to make it, as pip is told."""
        return f"dnnsplit-onnx[{','.join(self.extras)}]"

    @property
    def weight_nbytes(self) -> int:
        """Bytes of its weights, all of them float32."""
        return 4 * self.parameters


class _Row(NamedTuple):
    """Title, layers, parameters, data-flow nodes, MACs."""

    title: str
    layers: int
    parameters: int
    nodes: int
    macs: int


# By the name of the function in keras.applications.
_APPLICATIONS: dict[str, _Row] = {
    "VGG16": _Row("VGG16", 23, 138_357_544, 82, 15_470_264_320),
    "VGG19": _Row("VGG19", 26, 143_667_240, 97, 19_632_062_464),
    "ResNet50": _Row("ResNet-50", 177, 25_636_712, 441, 3_857_973_248),
    "ResNet101": _Row("ResNet-101", 347, 44_707_176, 866, 7_570_194_432),
    "ResNet152": _Row("ResNet-152", 517, 60_419_944, 1_291, 11_282_415_616),
    "MobileNet": _Row("MobileNet", 91, 4_253_864, 146, 568_740_352),
    "MobileNetV2": _Row("MobileNetV2", 156, 3_538_984, 257, 300_774_272),
    "MobileNetV3Small": _Row("MobileNetV3 small", 164, 2_554_968, 307, 56_510_400),
    "MobileNetV3Large": _Row("MobileNetV3 large", 194, 5_507_432, 355, 216_589_760),
    "DenseNet121": _Row("DenseNet-121", 429, 8_062_504, 796, 2_834_161_664),
    "DenseNet169": _Row("DenseNet-169", 597, 14_307_880, 1_108, 3_359_843_328),
    "DenseNet201": _Row("DenseNet-201", 709, 20_242_984, 1_316, 4_291_365_888),
    "InceptionV3": _Row("Inception v3", 313, 23_851_784, 473, 5_713_216_096),
    "InceptionResNetV2": _Row("Inception-ResNet v2", 782, 55_873_736, 1_298, 13_155_794_016),
    "Xception": _Row("Xception", 134, 22_910_480, 249, 8_357_403_496),
    "EfficientNetB0": _Row("EfficientNet-B0", 240, 5_330_571, 503, 385_814_752),
    "EfficientNetB4": _Row("EfficientNet-B4", 477, 19_466_823, 997, 4_393_771_024),
    "EfficientNetV2B0": _Row("EfficientNetV2-B0", 273, 7_200_312, 560, 718_086_176),
    "EfficientNetV2S": _Row("EfficientNetV2-S", 516, 21_612_360, 1_045, 8_365_617_152),
    "ConvNeXtTiny": _Row("ConvNeXt-T", 135, 28_589_128, 243, 4_455_531_264),
    "ConvNeXtBase": _Row("ConvNeXt-B", 261, 88_591_464, 459, 15_354_729_472),
    "NASNetMobile": _Row("NASNet mobile", 771, 5_326_716, 670, 563_638_816),
    "NASNetLarge": _Row("NASNet large", 1041, 88_949_818, 898, 23_783_414_658),
}

_LSTM = _Row("two-layer LSTM classifier", 3, 54_410, 11, 1_704_576)

# By the name of the builder in `pytorch_zoo`: the row, and what else it needs.
_PYTORCH: dict[str, tuple[_Row, tuple[str, ...]]] = {
    "alexnet": (_Row("AlexNet", 19, 61_100_840, 19, 714_188_480), _TORCH),
    "vgg16": (_Row("VGG16", 37, 138_357_544, 37, 15_470_264_320), _TORCH),
    "resnet18": (_Row("ResNet-18", 74, 11_689_512, 49, 1_814_073_344), _TRANSFORMERS),
    "mobilenetv2": (_Row("MobileNetV2", 142, 3_504_872, 100, 300_774_272), _TRANSFORMERS),
    "vit_base16": (_Row("ViT-B/16", 124, 86_567_656, 518, 17_563_828_224), _TRANSFORMERS),
    "bert_base": (_Row("BERT-base, 128 tokens", 149, 108_891_648, 515, 11_173_625_856), _TRANSFORMERS),
    "gpt2": (_Row("GPT-2 small, 128 tokens", 125, 124_439_808, 634, 16_114_089_984), _TRANSFORMERS),
    "gpt2_past": (
        _Row("GPT-2 small, a step with its caches", 125, 124_439_808, 644, 123_845_376),
        _TRANSFORMERS,
    ),
    "llama": (_Row("Llama-like decoder, 128 tokens", 124, 124_668_672, 902, 13_111_394_304), _TRANSFORMERS),
    "llama_past": (
        _Row("Llama-like decoder, a step with its caches", 124, 124_668_672, 915, 100_386_816),
        _TRANSFORMERS,
    ),
    "yolo": (_Row("YOLO-like detector, 640 x 640", 202, 6_642_911, 259, 8_080_409_600), _TORCH),
    "lstm": (_Row("two-layer LSTM classifier", 2, 54_922, 8, 1_704_576), _TORCH),
}


def build_framework_model(name: str) -> Any:
    """Builds a model of this part of the zoo with seeded weights, in this process.

    Args:
        name: A name in `FRAMEWORK_ENTRIES`.

    Raises:
        MissingExtraError: What it is made from is not installed.
    """
    entry = FRAMEWORK_ENTRIES[name]
    try:
        return entry.build()
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"`{name}` needs `{error.name or error}`, which is not installed",
            hint=f'pip install "{entry.requires}"',
        ) from error


def _application(function: str) -> Any:
    return import_module("dnnsplit_onnx.models.keras_zoo").application(function)


def _keras_lstm() -> Any:
    return import_module("dnnsplit_onnx.models.keras_zoo").lstm()


def _pytorch(builder: str) -> Any:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(import_module("dnnsplit_onnx.models.pytorch_zoo"), builder)()


def _table() -> dict[str, FrameworkEntry]:
    rows = []
    for function, row in _APPLICATIONS.items():
        name = f"keras_{function.lower()}"
        # Keras refuses to build NASNet on its torch backend.
        extras = _TENSORFLOW if function.startswith("NASNet") else _KERAS
        build = partial(_application, function)
        rows.append(FrameworkEntry(name, row.title, "Keras Applications", "keras", extras, *row[1:], build))
    rows.append(FrameworkEntry("keras_lstm", _LSTM.title, "Keras", "keras", _KERAS, *_LSTM[1:], _keras_lstm))
    for builder, (row, extras) in _PYTORCH.items():
        source = "transformers, from its configuration" if "zoo" in extras else "plain PyTorch"
        build = partial(_pytorch, builder)
        rows.append(FrameworkEntry(f"torch_{builder}", row.title, source, "pytorch", extras, *row[1:], build))
    return {entry.name: entry for entry in rows}


#: Every model of this part of the zoo, by name.
FRAMEWORK_ENTRIES: dict[str, FrameworkEntry] = _table()
