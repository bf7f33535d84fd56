"""Small models to convert: Keras layers and styles, PyTorch modules and styles, transformers' configurations.

Each family is a table of names and functions; a function returns what `convert` takes as a live model.
Weights are random and large enough for outputs that tell something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_ACTIVATIONS = [
    "ReLU", "GELU", "SiLU", "Tanh", "Sigmoid", "ELU", "SELU", "CELU", "Softplus", "Hardtanh", "Hardswish",
    "Hardsigmoid", "LeakyReLU", "Mish", "Softsign", "LogSigmoid", "ReLU6", "Tanhshrink", "Softshrink",
    "PReLU",
]  # fmt: skip

Builders = dict[str, Callable[[], Any]]


def keras_models() -> Builders:
    """Layers of Keras on the torch backend, one or a few at a time, and ways to build models."""
    import keras

    layers, wide = keras.layers, keras.initializers.RandomNormal(stddev=0.7)
    image, series, flat = (None, None, 3), (None, 4), (8,)

    def net(shape: Any, *stack: Any, **more: Any) -> Any:
        return keras.Sequential([keras.Input(shape, name="x", **more), *stack])

    singles: dict[str, tuple[Any, Callable[[], Any]]] = {
        f"Dense {name}": (flat, lambda name=name: layers.Dense(5, activation=name, kernel_initializer=wide))
        for name in (
            "relu",
            "gelu",
            "swish",
            "softmax",
            "tanh",
            "elu",
            "selu",
            "softplus",
            "hard_sigmoid",
            "mish",
        )
    }
    for padding in ("same", "valid"):
        for step in (1, 2):
            options = {"padding": padding, "strides": step, "kernel_initializer": wide}
            singles |= {
                f"Conv2D {padding} {step}": (image, lambda o=options: layers.Conv2D(4, 3, **o)),
                f"Conv1D {padding} {step}": (series, lambda o=options: layers.Conv1D(4, 3, **o)),
            }
            pool = {"padding": padding, "strides": step}
            singles |= {
                f"MaxPooling2D {padding} {step}": (image, lambda o=pool: layers.MaxPooling2D(2, **o)),
                f"AveragePooling2D {padding} {step}": (image, lambda o=pool: layers.AveragePooling2D(3, **o)),
                f"MaxPooling1D {padding} {step}": (series, lambda o=pool: layers.MaxPooling1D(2, **o)),
            }
    singles |= {
        "DepthwiseConv2D": (image, lambda: layers.DepthwiseConv2D(3, padding="same", strides=2)),
        "SeparableConv2D": (image, lambda: layers.SeparableConv2D(4, 3, padding="same")),
        "Conv2D dilated": (image, lambda: layers.Conv2D(4, 3, padding="same", dilation_rate=2)),
        "Conv2D groups": ((None, None, 4), lambda: layers.Conv2D(4, 3, groups=2)),
        "Conv1D causal": (series, lambda: layers.Conv1D(4, 3, padding="causal")),
        "Conv2DTranspose": (image, lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same")),
        "Conv3D": ((8, 8, 8, 2), lambda: layers.Conv3D(3, 3, padding="same")),
        "UpSampling2D nearest": (image, lambda: layers.UpSampling2D(2)),
        "UpSampling2D bilinear": ((8, 8, 3), lambda: layers.UpSampling2D(2, interpolation="bilinear")),
        "ZeroPadding2D": (image, lambda: layers.ZeroPadding2D(((1, 2), (0, 1)))),
        "Cropping2D": (image, lambda: layers.Cropping2D(1)),
        "GlobalMaxPooling2D": (image, layers.GlobalMaxPooling2D),
        "GlobalAveragePooling1D": (series, layers.GlobalAveragePooling1D),
        "BatchNormalization": (image, lambda: layers.BatchNormalization(beta_initializer=wide)),
        "LayerNormalization": (series, lambda: layers.LayerNormalization(beta_initializer=wide)),
        "GroupNormalization": ((8, 8, 4), lambda: layers.GroupNormalization(2)),
        "UnitNormalization": (flat, layers.UnitNormalization),
        "PReLU": (flat, layers.PReLU),
        "LeakyReLU": (flat, layers.LeakyReLU),
        "RepeatVector": (flat, lambda: layers.RepeatVector(3)),
        "Permute": (series, lambda: layers.Permute((2, 1))),
        "Reshape": (flat, lambda: layers.Reshape((2, 4))),
        "TimeDistributed": (series, lambda: layers.TimeDistributed(layers.Dense(3))),
        "LSTM fixed": ((7, 4), lambda: layers.LSTM(5)),
        "GRU fixed": ((7, 4), lambda: layers.GRU(5, return_sequences=True)),
        "SimpleRNN fixed": ((7, 4), lambda: layers.SimpleRNN(5)),
        "Bidirectional fixed": ((7, 4), lambda: layers.Bidirectional(layers.LSTM(5))),
        "LSTM open": (series, lambda: layers.LSTM(5)),
        "GRU open": (series, lambda: layers.GRU(5, return_sequences=True)),
        "GRU resets before": (series, lambda: layers.GRU(5, reset_after=False)),
        "SimpleRNN open": (series, lambda: layers.SimpleRNN(5)),
        "Bidirectional open": (series, lambda: layers.Bidirectional(layers.LSTM(5, return_sequences=True))),
        "ConvLSTM2D open": ((None, 6, 6, 2), lambda: layers.ConvLSTM2D(3, 3, padding="same")),
        "LSTM elu": (series, lambda: layers.LSTM(5, activation="elu")),
        "cells stacked": (series, lambda: layers.RNN([layers.LSTMCell(5), layers.GRUCell(3)])),
        "TimeDistributed LSTM": ((None, 5, 4), lambda: layers.TimeDistributed(layers.LSTM(3))),
        "RandomFlip": ((8, 8, 3), layers.RandomFlip),
        "Rescaling": (image, lambda: layers.Rescaling(1 / 127.5, offset=-1)),
        "Resizing": ((8, 8, 3), lambda: layers.Resizing(12, 10)),
    }
    built = {name: lambda s=shape, m=make: net(s, m()) for name, (shape, make) in singles.items()}
    return {**built, **_keras_styles(keras, net, wide)}


def _keras_styles(keras: Any, net: Any, wide: Any) -> Builders:
    layers = keras.layers

    def embedding() -> Any:
        return net(
            (None,), layers.Embedding(11, 6, embeddings_initializer=wide), layers.GlobalAveragePooling1D(),
            layers.Dense(3), dtype="int32",
        )  # fmt: skip

    def attention() -> Any:
        x = keras.Input((9, 8))
        return keras.Model(x, layers.MultiHeadAttention(2, 4)(x, x))

    def by_names() -> Any:
        a, b = keras.Input((4,), name="b_input"), keras.Input((3,), name="a_input")
        x = layers.Concatenate()([layers.Dense(3)(a), b])
        return keras.Model(
            {"b_input": a, "a_input": b}, {"two": layers.Dense(2)(x), "one": layers.Dense(1)(x)}
        )

    def inner_by_names() -> Any:
        inner, x = by_names(), keras.Input((4,))
        return keras.Model(x, inner({"b_input": x, "a_input": layers.Dense(3)(x)})["two"])

    def image_to_image() -> Any:
        return net(
            (None, None, 3), layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.Conv2D(3, 3, padding="same"), layers.Conv2D(3, 3, padding="same"),
        )  # fmt: skip

    def classifier() -> Any:
        return net(
            (None, None, 3), layers.Conv2D(8, 3, strides=2, padding="same"), layers.BatchNormalization(),
            layers.ReLU(), layers.Conv2D(8, 3, strides=2, padding="same"),
            layers.MaxPooling2D(2, padding="same"),
            layers.GlobalAveragePooling2D(), layers.Dense(5, activation="softmax", kernel_initializer=wide),
        )  # fmt: skip

    def unet() -> Any:
        x = keras.Input((16, 16, 3))
        down = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
        low = layers.Conv2D(8, 3, padding="same")(layers.MaxPooling2D(2)(down))
        up = layers.Conv2DTranspose(4, 2, strides=2)(low)
        return keras.Model(x, layers.Conv2D(3, 1)(layers.Concatenate()([up, down])))

    def shared() -> Any:
        a, b, dense = keras.Input((4,)), keras.Input((4,)), layers.Dense(5, name="shared")
        return keras.Model([a, b], layers.Dot(1)([dense(a), dense(b)]))

    def dropout_on() -> Any:
        x = keras.Input((8,))
        return keras.Model(x, layers.Dense(3)(layers.Dropout(0.5)(layers.Dense(8)(x), training=True)))

    def half() -> Any:
        keras.config.set_dtype_policy("mixed_float16")
        try:
            return net((8,), layers.Dense(16, activation="relu"), layers.Dense(3, dtype="float32"))
        finally:
            keras.config.set_dtype_policy("float32")

    def masked() -> Any:
        return net(
            (6,),
            layers.Embedding(11, 6, mask_zero=True, embeddings_initializer=wide),
            layers.LSTM(4),
            dtype="int32",
        )

    def masked_open() -> Any:
        return net(
            (None,),
            layers.Embedding(11, 6, mask_zero=True, embeddings_initializer=wide),
            layers.Bidirectional(layers.GRU(4, return_sequences=True)),
            layers.LSTM(4),
            dtype="int32",
        )

    def operations() -> Any:
        x = keras.Input((6, 4))
        return keras.Model(x, keras.ops.softmax(keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1))) * 0.3))

    return {
        "embedding, open text": embedding,
        "attention": attention,
        "dicts in and out": by_names,
        "a model of dicts inside": inner_by_names,
        "image to image, own names": image_to_image,
        "classifier (None, None, 3)": classifier,
        "u-net": unet,
        "shared layer": shared,
        "dropout with training=True": dropout_on,
        "mixed_float16": half,
        "masked LSTM": masked,
        "masked GRU and LSTM, open": masked_open,
        "keras.ops": operations,
    }


def pytorch_models() -> Builders:
    """Modules of PyTorch, one at a time, and ways in which people write models."""
    import torch
    from torch import nn

    def image(*size: int) -> Any:
        return torch.randn(1, *(size or (3, 9, 9)))

    def seq() -> Any:
        return torch.randn(2, 7, 8)

    singles: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        f"{name}": (
            lambda name=name: nn.Sequential(nn.Linear(8, 6), getattr(nn, name)()),
            lambda: torch.randn(1, 8),
        )
        for name in _ACTIVATIONS
    }
    singles |= {
        "Softmax": (lambda: nn.Softmax(-1), seq),
        "LogSoftmax": (lambda: nn.LogSoftmax(-1), seq),
        "GLU": (nn.GLU, seq),
        "Conv1d": (lambda: nn.Conv1d(7, 4, 3), seq),
        "Conv2d": (lambda: nn.Conv2d(3, 4, 3, padding="same"), image),
        "Conv2d groups": (lambda: nn.Conv2d(4, 8, 3, stride=2, groups=4), lambda: image(4, 9, 9)),
        "Conv3d": (lambda: nn.Conv3d(2, 3, 3), lambda: image(2, 6, 6, 6)),
        "ConvTranspose2d": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2), image),
        "MaxPool1d": (lambda: nn.MaxPool1d(2), seq),
        "MaxPool2d ceil": (lambda: nn.MaxPool2d(2, ceil_mode=True), image),
        "AvgPool2d": (lambda: nn.AvgPool2d(3, stride=2, padding=1), image),
        "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d(1), image),
        "AdaptiveAvgPool2d 3": (lambda: nn.AdaptiveAvgPool2d(3), image),
        "BatchNorm2d": (lambda: nn.BatchNorm2d(3), image),
        "InstanceNorm2d": (lambda: nn.InstanceNorm2d(3, affine=True), image),
        "GroupNorm": (lambda: nn.GroupNorm(2, 4), lambda: image(4, 9, 9)),
        "LayerNorm": (lambda: nn.LayerNorm(8), seq),
        "RMSNorm": (lambda: nn.RMSNorm(8), seq),
        "Upsample": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), image),
        "PixelShuffle": (lambda: nn.PixelShuffle(2), lambda: image(4, 9, 9)),
        "ReflectionPad2d": (lambda: nn.ReflectionPad2d(1), image),
        "Flatten": (nn.Flatten, seq),
        "Bilinear": (lambda: nn.Bilinear(8, 8, 3), lambda: (torch.randn(1, 8), torch.randn(1, 8))),
        "Embedding": (lambda: nn.Embedding(11, 6), lambda: torch.tensor([[1, 4, 7, 10]])),
        "LSTM batch first": (lambda: nn.LSTM(8, 5, batch_first=True), seq),
        "LSTM time first": (lambda: nn.LSTM(8, 5), lambda: torch.randn(7, 2, 8)),
        "GRU time first": (lambda: nn.GRU(8, 5), lambda: torch.randn(10, 2, 8)),
        "GRU both ways": (lambda: nn.GRU(8, 5, 2, batch_first=True, bidirectional=True), seq),
        "RNN": (lambda: nn.RNN(8, 5, batch_first=True), seq),
        "LSTMCell": (lambda: nn.LSTMCell(8, 5), lambda: torch.randn(2, 8)),
        "TransformerEncoderLayer": (
            lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            seq,
        ),
        "MultiheadAttention": (
            lambda: nn.MultiheadAttention(8, 2, batch_first=True),
            lambda: (torch.randn(2, 7, 8),) * 3,
        ),
        "Dropout": (lambda: nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.5)), lambda: torch.randn(1, 8)),
    }
    built: Builders = {
        name: lambda m=make, e=example: (m(), e()) for name, (make, example) in singles.items()
    }
    return {**built, **_pytorch_styles(torch, nn)}


def _pytorch_styles(torch: Any, nn: Any) -> Builders:
    def of(forward: Callable[..., Any], *example: Any, dynamic: Any = None, module: Any = None) -> Any:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = module or nn.Linear(8, 8)

        Net.forward = forward  # type: ignore[method-assign]
        return Net(), example, dynamic

    def one(self: Any, x: Any) -> Any:
        return self.inner(x)

    x = torch.randn(1, 8)

    def outputs(self: Any, x: Any) -> Any:
        y = self.inner(x)
        return {"embedding": y, "linear": y.softmax(-1), "mean": y.mean(-1), "softmax": y.relu()}

    def summed(self: Any, a: Any, b: Any) -> Any:
        return self.inner(a) + b

    def step(self: Any, x: Any, t: Any) -> Any:
        return self.inner(x) * t.cos()

    def mask(self: Any, x: Any, keep: Any) -> Any:
        return self.inner(x).masked_fill(keep == 0, -1e4).softmax(-1)

    def windows(self: Any, x: Any) -> Any:
        return x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2]).mean(2) @ self.inner.weight

    def gathered(self: Any, x: Any, rows: Any) -> Any:
        return torch.gather(self.inner(x), 1, rows)

    def distances(_: Any, x: Any) -> Any:
        return torch.cdist(x, x).sum(-1)

    def top(self: Any, x: Any) -> Any:
        return torch.topk(self.inner(x), 3).values

    def resized(_: Any, x: Any) -> Any:
        return torch.nn.functional.interpolate(x, scale_factor=0.5, mode="bilinear")

    def squeezed(self: Any, x: Any) -> Any:
        return self.inner(x).squeeze()

    def branch(self: Any, x: Any) -> Any:
        return self.inner(x) if x.sum() > 0 else x

    def half() -> Any:
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).half(), x.half()

    def bfloat() -> Any:
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).bfloat16(), x.bfloat16()

    def script() -> Any:
        return torch.jit.script(nn.Sequential(nn.Linear(8, 5), nn.Tanh())), {"input": x}

    def traced() -> Any:
        return torch.jit.trace(nn.Sequential(nn.Linear(8, 5), nn.Tanh()), x), {"input": x}

    def program() -> Any:
        dims = ({0: torch.export.Dim("rows", min=4)},)
        return torch.export.export(nn.Linear(8, 5), (torch.randn(6, 8),), dynamic_shapes=dims)

    text = {"x": {0: "batch", 1: "time"}}
    return {
        "output names of layers": lambda: of(outputs, x),
        "two inputs": lambda: of(summed, x, torch.randn(1, 8)),
        "keyword inputs": lambda: (of(summed)[0], {"b": torch.randn(1, 8), "a": x}),
        "timestep of no dimension": lambda: of(step, x, torch.tensor(3.0)),
        "mask": lambda: of(mask, x, torch.tensor([[1, 1, 0, 1, 1, 1, 0, 1]])),
        "an open length": lambda: of(one, torch.randn(1, 7, 8), dynamic=text),
        "pairs of an open length": lambda: of(windows, torch.randn(1, 6, 8), dynamic=text),
        "LSTM of an open length": lambda: (
            nn.LSTM(8, 5, batch_first=True), (torch.randn(1, 7, 8),), {"input": {0: "batch", 1: "time"}}
        ),
        "GRU of an open length": lambda: (
            nn.GRU(8, 5, 2, bidirectional=True), (torch.randn(7, 1, 8),), {"input": {1: "batch", 0: "time"}}
        ),
        "RNN of an open length": lambda: (
            nn.RNN(8, 5, batch_first=True), (torch.randn(1, 7, 8),), {"input": {0: "batch", 1: "time"}}
        ),
        "gather": lambda: of(gathered, x, torch.tensor([[1, 0, 3]])),
        "cdist": lambda: of(distances, torch.randn(1, 5, 3)),
        "topk": lambda: of(top, x),
        "interpolate": lambda: of(resized, torch.randn(1, 3, 8, 8)),
        "squeeze of a batch of one": lambda: of(squeezed, torch.randn(2, 8)),
        "an if over values": lambda: of(branch, x),
        "half": half,
        "bfloat16": bfloat,
        "torch.jit.script": script,
        "torch.jit.trace": traced,
        "exported program, min=4": program,
        "torch.compile": lambda: (torch.compile(nn.Linear(8, 5)), x),
    }  # fmt: skip


def transformers_models(folder: Any) -> dict[str, tuple[Callable[[], Any], bool]]:
    """Saves a small model of each configuration; the path, and whether with its caches."""
    import torch
    import transformers

    text = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "vocab_size": 99, "max_position_embeddings": 64, "initializer_range": 0.3,
    }  # fmt: skip
    grouped = {**text, "num_key_value_heads": 2}
    gpt2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99, "n_positions": 64}
    t5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 99}
    vit = {**text, "image_size": 32, "patch_size": 8}
    bart = {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 99,
        "max_position_embeddings": 64, "init_std": 0.3,
    }  # fmt: skip
    distil = {
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 64,
        "vocab_size": 99,
        "initializer_range": 0.3,
    }
    rows = [
        ("Bert", "Model", text), ("Bert", "ForMaskedLM", text), ("Bert", "ForQuestionAnswering", text),
        ("Bert", "ForSequenceClassification", text), ("Roberta", "ForTokenClassification", text),
        ("DistilBert", "ForSequenceClassification", distil), ("Electra", "Model", text),
        ("GPT2", "LMHeadModel", gpt2), ("Llama", "ForCausalLM", text), ("Qwen2", "ForCausalLM", grouped),
        ("Mistral", "ForCausalLM", grouped), ("GPTNeoX", "ForCausalLM", text), ("OPT", "ForCausalLM", None),
        ("T5", "ForConditionalGeneration", t5), ("Bart", "ForConditionalGeneration", bart),
        ("ViT", "ForImageClassification", vit), ("DeiT", "ForImageClassification", vit),
        ("ResNet", "ForImageClassification",
         {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8}),
        ("ConvNext", "ForImageClassification", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}),
    ]  # fmt: skip
    opt = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "vocab_size": 99,
        "max_position_embeddings": 64, "word_embed_proj_dim": 32,
    }  # fmt: skip

    def saved(name: str, kind: str, options: Any) -> Any:
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**(options or opt))
        path = folder / f"{name}{kind}"
        getattr(transformers, name + kind)(config).save_pretrained(path)
        return path

    table: dict[str, tuple[Callable[[], Any], bool]] = {}
    for name, kind, options in rows:
        table[name + kind] = (lambda n=name, k=kind, o=options: saved(n, k, o)), False
        if kind in ("LMHeadModel", "ForCausalLM", "ForConditionalGeneration"):
            table[f"{name}{kind} with past"] = (lambda n=name, k=kind, o=options: saved(n, k, o)), True
    return table
