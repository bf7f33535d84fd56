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
        recurrent: Whether it holds recurrent layers, which torch's exporter unrolls.
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
    recurrent: bool = False

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
    "VGG16": _Row("VGG16", 0, 0, 0, 0),
    "VGG19": _Row("VGG19", 0, 0, 0, 0),
    "ResNet50": _Row("ResNet-50", 0, 0, 0, 0),
    "ResNet101": _Row("ResNet-101", 0, 0, 0, 0),
    "ResNet152": _Row("ResNet-152", 0, 0, 0, 0),
    "ResNet50V2": _Row("ResNet-50 v2", 0, 0, 0, 0),
    "ResNet101V2": _Row("ResNet-101 v2", 0, 0, 0, 0),
    "ResNet152V2": _Row("ResNet-152 v2", 0, 0, 0, 0),
    "MobileNet": _Row("MobileNet", 0, 0, 0, 0),
    "MobileNetV2": _Row("MobileNetV2", 0, 0, 0, 0),
    "MobileNetV3Small": _Row("MobileNetV3 small", 0, 0, 0, 0),
    "MobileNetV3Large": _Row("MobileNetV3 large", 0, 0, 0, 0),
    "DenseNet121": _Row("DenseNet-121", 0, 0, 0, 0),
    "DenseNet169": _Row("DenseNet-169", 0, 0, 0, 0),
    "DenseNet201": _Row("DenseNet-201", 0, 0, 0, 0),
    "InceptionV3": _Row("Inception v3", 0, 0, 0, 0),
    "InceptionResNetV2": _Row("Inception-ResNet v2", 0, 0, 0, 0),
    "Xception": _Row("Xception", 0, 0, 0, 0),
    "EfficientNetB0": _Row("EfficientNet-B0", 0, 0, 0, 0),
    "EfficientNetB4": _Row("EfficientNet-B4", 0, 0, 0, 0),
    "EfficientNetB7": _Row("EfficientNet-B7", 0, 0, 0, 0),
    "EfficientNetV2B0": _Row("EfficientNetV2-B0", 0, 0, 0, 0),
    "EfficientNetV2S": _Row("EfficientNetV2-S", 0, 0, 0, 0),
    "ConvNeXtTiny": _Row("ConvNeXt-T", 0, 0, 0, 0),
    "ConvNeXtBase": _Row("ConvNeXt-B", 0, 0, 0, 0),
    "NASNetMobile": _Row("NASNet mobile", 0, 0, 0, 0),
    "NASNetLarge": _Row("NASNet large", 0, 0, 0, 0),
}

_LSTM = _Row("two-layer LSTM classifier", 0, 0, 0, 0)

# By the name of the builder in `pytorch_zoo`: the row, and what else it needs.
_PYTORCH: dict[str, tuple[_Row, tuple[str, ...]]] = {
    "alexnet": (_Row("AlexNet", 0, 0, 0, 0), _TORCH),
    "vgg16": (_Row("VGG16", 0, 0, 0, 0), _TORCH),
    "resnet18": (_Row("ResNet-18", 0, 0, 0, 0), _TRANSFORMERS),
    "mobilenetv2": (_Row("MobileNetV2", 0, 0, 0, 0), _TRANSFORMERS),
    "vit_base16": (_Row("ViT-B/16", 0, 0, 0, 0), _TRANSFORMERS),
    "bert_base": (_Row("BERT-base, 128 tokens", 0, 0, 0, 0), _TRANSFORMERS),
    "gpt2": (_Row("GPT-2 small, 128 tokens", 0, 0, 0, 0), _TRANSFORMERS),
    "gpt2_past": (_Row("GPT-2 small, a step with its caches", 0, 0, 0, 0), _TRANSFORMERS),
    "llama": (_Row("Llama-like decoder, 128 tokens", 0, 0, 0, 0), _TRANSFORMERS),
    "llama_past": (_Row("Llama-like decoder, a step with its caches", 0, 0, 0, 0), _TRANSFORMERS),
    "yolo": (_Row("YOLO-like detector, 640 x 640", 0, 0, 0, 0), _TORCH),
    "lstm": (_Row("two-layer LSTM classifier", 0, 0, 0, 0), _TORCH),
}


def build_framework_model(name: str) -> Any:
    """Builds a model of this part of the zoo with seeded weights, in this process.

    Args:
        name: Its name; `get_framework_entry` says whether there is one.

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
    rows.append(
        FrameworkEntry(
            "keras_lstm", _LSTM.title, "Keras", "keras", _KERAS, *_LSTM[1:], _keras_lstm, recurrent=True
        )
    )
    for builder, (row, extras) in _PYTORCH.items():
        source = "transformers, from its configuration" if "zoo" in extras else "plain PyTorch"
        build = partial(_pytorch, builder)
        rows.append(FrameworkEntry(f"torch_{builder}", row.title, source, "pytorch", extras, *row[1:], build))
    return {entry.name: entry for entry in rows}


#: Every model of this part of the zoo, by name.
FRAMEWORK_ENTRIES: dict[str, FrameworkEntry] = _table()
