"""PyTorch models with seeded random weights, none of which needs torchvision or a download.

Each builder returns what `convert` takes: the module, example inputs, and the names of its
open dimensions where they are more than the batch. Networks of the literature come from
`transformers`, built from their configuration; what it does not have is written here from
the papers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

Built = tuple[nn.Module, dict[str, Any], dict[str, dict[int, str]] | None]

_TOKENS = 128


def alexnet() -> Built:
    """AlexNet in its one-column form: Krizhevsky, One weird trick, arXiv:1404.5997."""
    return _image(nn.Sequential(_alexnet_features(), nn.Flatten(), *_dense_head(256 * 6 * 6)))


def vgg16() -> Built:
    """VGG16: Simonyan and Zisserman, arXiv:1409.1556, configuration D."""
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return _image(nn.Sequential(nn.Sequential(*layers), nn.Flatten(), *_dense_head(512 * 7 * 7)))


def resnet18() -> Built:
    """ResNet-18: He et al., arXiv:1512.03385."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", num_labels=1000
    )
    return _image(_Logits(ResNetForImageClassification(config)), "pixel_values")


def mobilenetv2() -> Built:
    """MobileNetV2: Sandler et al., arXiv:1801.04381."""
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    config = MobileNetV2Config(num_labels=1000, image_size=224)
    return _image(_Logits(MobileNetV2ForImageClassification(config)), "pixel_values")


def vit_base16() -> Built:
    """ViT-B/16: Dosovitskiy et al., arXiv:2010.11929."""
    from transformers import ViTConfig, ViTForImageClassification

    model = _Logits(ViTForImageClassification(ViTConfig(num_labels=1000)))
    return model, {"pixel_values": torch.randn(2, 3, 224, 224)}, None


def bert_base() -> Built:
    """BERT-base, the encoder: Devlin et al., arXiv:1810.04805."""
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(), add_pooling_layer=False)
    return _Hidden(model), {"input_ids": _tokens(30522)}, None


def gpt2() -> Built:
    """GPT-2 small on a whole text: Radford et al., 2019."""
    return _Logits(_gpt2()), {"input_ids": _tokens(50257)}, None


def gpt2_past() -> Built:
    """GPT-2 small as a step of generation, each layer's cache an input and an output."""
    return _decoder(_gpt2(), vocabulary=50257, layers=12, heads=12, width=64)


def llama() -> Built:
    """A Llama-like decoder of 134 M parameters: Touvron et al., arXiv:2307.09288."""
    return _Logits(_llama()), {"input_ids": _tokens(32000)}, None


def llama_past() -> Built:
    """The Llama-like decoder as a step of generation; grouped queries share their cache."""
    return _decoder(_llama(), vocabulary=32000, layers=12, heads=4, width=64)


def yolo() -> Built:
    """A YOLO-like one-stage detector for 640 x 640 images, three scales."""
    from dnnsplit_onnx.models.yolo import Detector

    return _image(Detector(), "images", 640)


def lstm() -> Built:
    """A two-layer LSTM classifier over a sequence of feature vectors."""
    return _Recurrent(), {"sequence": torch.randn(2, 32, 16)}, None


class _Logits(nn.Module):
    """A model of `transformers`, giving its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        extra = {"use_cache": False} if "input_ids" in inputs else {}
        return {"logits": self.model(**inputs, **extra).logits}


class _Hidden(nn.Module):
    """An encoder of `transformers`, giving its last hidden state alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        return {"last_hidden_state": self.model(input_ids=input_ids).last_hidden_state}


class Step(nn.Module):
    """One step of a decoder of `transformers`: tokens and caches in, logits and longer caches out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        past_key_values: Mapping[str, Mapping[str, Tensor]],
        attention_mask: Tensor | None = None,
    ) -> dict[str, Any]:
        """The mask is over old and new tokens."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for at, layer in past_key_values.items():
            cache.update(layer["key"], layer["value"], int(at))
        masked = {} if attention_mask is None else {"attention_mask": attention_mask}
        result = self.model(input_ids=input_ids, past_key_values=cache, use_cache=True, **masked)
        present = {str(at): {"key": held.keys, "value": held.values} for at, held in enumerate(cache.layers)}
        return {"logits": result.logits, "present": present}


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(16, 64, num_layers=2, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, sequence: Tensor) -> dict[str, Tensor]:
        states, _ = self.lstm(sequence)
        return {"logits": self.head(states[:, -1])}


def _alexnet_features() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
    )


def _dense_head(width: int) -> list[nn.Module]:
    return [
        nn.Linear(width, 4096),
        nn.ReLU(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, 1000),
    ]


def _gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    model: nn.Module = GPT2LMHeadModel(GPT2Config())
    return model


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=2048,
    )
    model: nn.Module = LlamaForCausalLM(config)
    return model


def _tokens(vocabulary: int) -> Tensor:
    return torch.randint(0, vocabulary, (2, _TOKENS))


def _decoder(
    model: nn.Module, *, vocabulary: int, layers: int, heads: int, width: int, past: int = 6
) -> Built:
    """A decoder with its caches as inputs: any batch, any number of tokens old and new."""
    caches = {
        str(at): {name: torch.randn(2, heads, past, width) for name in ("key", "value")}
        for at in range(layers)
    }
    example = {"input_ids": torch.randint(0, vocabulary, (2, 3)), "past_key_values": caches}
    dynamic = {"input_ids": {0: "batch", 1: "sequence"}}
    for at in range(layers):
        for name in ("key", "value"):
            dynamic[f"past_key_values.{at}.{name}"] = {0: "batch", 2: "past_sequence"}
    return Step(model), example, dynamic


def _image(module: nn.Module, name: str = "input", size: int = 224) -> Built:
    """An image network, its weights as large as they need to be for its output to tell.

    PyTorch's defaults let activations die out over a dozen layers, until the output is the
    biases' alone. So batch normalisations take their statistics from a random batch; in a
    network without them, weights in front of rectifiers keep the variance.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    image = torch.randn(2, 3, size, size)
    if norms:
        module.train()
        for norm in norms:
            norm.momentum = None  # the statistics of what is seen, not a moving average
        with torch.no_grad():
            module(**{name: image})
    else:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d) or (isinstance(layer, nn.Linear) and layer.out_features == 4096):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return module.eval(), {name: image}, None
