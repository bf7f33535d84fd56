"""Folders that Hugging Face's `save_pretrained` writes: local files alone, and no code of theirs.

The model class is the one that the configuration names, or that of a task. Inputs get the
names that runtimes expect, and their lengths stay open. A decoder with its caches takes one
step: `past_key_values.0.key` in, `present.0.key` out, and a mask over old and new tokens. That
of an encoder-decoder takes what the encoder gave, the task `encoder` of the same folder, besides.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from dnnsplit_onnx.converters.reasons import reason
from dnnsplit_onnx.errors import InputError

# The class of `transformers` that loads a model for each task.
TASKS = {
    "encoder": "AutoModel",
    "feature-extraction": "AutoModel",
    "fill-mask": "AutoModelForMaskedLM",
    "image-classification": "AutoModelForImageClassification",
    "object-detection": "AutoModelForObjectDetection",
    "question-answering": "AutoModelForQuestionAnswering",
    "text-classification": "AutoModelForSequenceClassification",
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "token-classification": "AutoModelForTokenClassification",
}
_OLD, _NEW = 5, 4  # tokens of the example
_WHISPER = "whisper"

Built = tuple[Any, dict[str, Any], dict[str, dict[int, str]]]


def load_folder(folder: Path, task: str | None, with_past: bool) -> Built:
    """Loads a model with example inputs and the names of its open dimensions.

    Args:
        folder: What `save_pretrained` wrote.
        task: What it is for, None for what its configuration names.
        with_past: Whether a decoder takes and gives its caches.

    Raises:
        InputError: It cannot be loaded, or is of a kind that has no example here.
    """
    import torch

    model = _load(folder, task).float().eval()
    config = model.config
    if task == "encoder":
        if not config.is_encoder_decoder:
            raise InputError(
                f"`{folder}` is a {type(model).__name__}, which has no encoder of its own",
                hint="leave --task away",
            )
        model = model.get_encoder()
    elif with_past and not _is_decoder(model):
        raise InputError(
            f"`{folder}` is a {type(model).__name__}, which --with-past is not for",
            hint="it is for decoders: leave it away, or pass --task text-generation or text2text-generation",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if model.main_input_name == "pixel_values":
            return _of_images(model)
        if model.main_input_name != "input_ids" and config.model_type != _WHISPER:
            raise InputError(
                f"`{folder}` takes `{model.main_input_name}`, of which no example can be made here",
                hint="write a function that returns (model, example inputs): package.module:function",
            )
        if task == "encoder" or not with_past:
            return _of_text(model)
        return _step_after_encoder(model) if config.is_encoder_decoder else _step(model)


def _load(folder: Path, task: str | None) -> Any:
    import transformers

    if task is not None and task not in TASKS:
        raise InputError(f"no task `{task}`", hint="tasks are " + ", ".join(TASKS))
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        named = getattr(transformers, next(iter(config.architectures or ()), ""), None)
        kind = named if task is None and named else getattr(transformers, TASKS[task or "feature-extraction"])
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # anything can be wrong with a folder
        raise InputError(
            f"transformers cannot load `{folder}`: {reason(error)}",
            hint="it needs config.json and model.safetensors, as model.save_pretrained(folder) writes them",
        ) from error


def _is_decoder(model: Any) -> bool:
    return "past_key_values" in inspect.signature(model.forward).parameters and bool(model.can_generate())


def _of_images(model: Any) -> Built:
    import torch

    vision = getattr(model.config, "vision_config", model.config)
    size = getattr(vision, "image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    image = torch.randn(2, getattr(vision, "num_channels", 3), height, width)
    return _naming(model, {}), {"pixel_values": image}, {"pixel_values": {0: "batch"}}


def _of_text(model: Any) -> Built:
    """Tokens and their mask; the caches of a decoder stay inside."""
    import torch

    accepted = inspect.signature(model.forward).parameters
    example = _read(model)
    if "token_type_ids" in accepted and getattr(model.config, "type_vocab_size", 0) > 1:
        example["token_type_ids"] = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1]] * 2)
    dynamic = {
        name: {0: "batch"} if name == "input_features" else {0: "batch", 1: "sequence"} for name in example
    }
    if "decoder_input_ids" in accepted:
        example["decoder_input_ids"] = _tokens(model, _NEW)
        dynamic["decoder_input_ids"] = {0: "batch", 1: "decoder_sequence"}
    fixed = {"use_cache": False} if "use_cache" in accepted else {}
    return _naming(model, fixed), example, dynamic


def _step(model: Any) -> Built:
    """New tokens and caches of old ones; a mask over both."""
    import torch

    from dnnsplit_onnx.models.pytorch_zoo import Step

    with torch.no_grad():
        past = _held(model(input_ids=_tokens(model, _OLD), use_cache=True).past_key_values)
    example = {
        "input_ids": _tokens(model, _NEW),
        "attention_mask": _mask(_OLD + _NEW),
        "past_key_values": past,
    }
    dynamic = {
        "input_ids": {0: "batch", 1: "sequence"},
        "attention_mask": {0: "batch", 1: "past_sequence + sequence"},
    }
    return Step(model), example, {**dynamic, **_open_caches(past)}


def _step_after_encoder(model: Any) -> Built:
    """New tokens of the decoder, caches of its old ones, and what the encoder gave with its mask."""
    import torch
    from transformers import DynamicCache, EncoderDecoderCache
    from transformers.modeling_outputs import BaseModelOutput

    class StepAfterEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self, decoder_input_ids: Any, encoder_hidden_states: Any, encoder_attention_mask: Any = None,
            past_key_values: Any = None,
        ) -> dict[str, Any]:  # fmt: skip
            own = DynamicCache()
            for at, layer in past_key_values.items():
                own.update(layer["key"], layer["value"], int(at))
            result = self.model(
                decoder_input_ids=decoder_input_ids,
                encoder_outputs=BaseModelOutput(last_hidden_state=encoder_hidden_states),
                attention_mask=encoder_attention_mask,
                past_key_values=EncoderDecoderCache(own, DynamicCache()),
                use_cache=True,
            )
            return {"logits": result.logits, "present": _held(own)}

    text = _read(model)
    with torch.no_grad():
        encoded = model.get_encoder()(**text, return_dict=True).last_hidden_state
        whole = model(**text, decoder_input_ids=_tokens(model, _OLD), use_cache=True).past_key_values
    past = _held(whole.self_attention_cache)
    example = {
        "decoder_input_ids": _tokens(model, _NEW),
        "encoder_hidden_states": encoded,
        **({"encoder_attention_mask": text["attention_mask"]} if "attention_mask" in text else {}),
        "past_key_values": past,
    }
    dynamic = {
        "decoder_input_ids": {0: "batch", 1: "sequence"},
        "encoder_hidden_states": {0: "batch", 1: "encoder_sequence"},
        "encoder_attention_mask": {0: "batch", 1: "encoder_sequence"},
    }
    named = {name: axes for name, axes in dynamic.items() if name in example}
    return StepAfterEncoder(), example, {**named, **_open_caches(past)}


def _held(cache: Any) -> dict[str, dict[str, Any]]:
    """The keys and values of a cache by layer."""
    return {str(at): {"key": layer.keys, "value": layer.values} for at, layer in enumerate(cache.layers)}


def _open_caches(past: dict[str, Any]) -> dict[str, dict[int, str]]:
    return {
        f"past_key_values.{at}.{part}": {0: "batch", 2: "past_sequence"}
        for at in past
        for part in ("key", "value")
    }


def _read(model: Any) -> dict[str, Any]:
    """What a model reads: tokens and their mask, or the spectrum of the seconds that Whisper hears."""
    import torch

    if model.config.model_type == _WHISPER:
        shape = (2, model.config.num_mel_bins, 2 * model.config.max_source_positions)
        return {"input_features": torch.randn(shape)}
    return {"input_ids": _tokens(model, _OLD + _NEW), "attention_mask": _mask(_OLD + _NEW)}


def _tokens(model: Any, length: int) -> Any:
    import torch

    # No padding and no end in it: models look for these.
    low = 3 if model.config.get_text_config().vocab_size > 8 else 0
    return torch.randint(low, model.config.get_text_config().vocab_size, (2, length))


def _mask(length: int) -> Any:
    """All tokens count in the first text, all but one in the second."""
    import torch

    mask = torch.ones(2, length, dtype=torch.int64)
    mask[1, length // 2] = 0
    return mask


def _chosen(result: Any) -> dict[str, Any]:
    """The tensors of a result by their names; caches and losses left out."""
    import torch

    return {
        name: value for name, value in result.items() if isinstance(value, torch.Tensor) and name != "loss"
    }


def _naming(model: Any, fixed: dict[str, Any]) -> Any:
    """A module that gives the tensors of a model's result by name."""
    import torch

    class Chosen(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, **inputs: Any) -> dict[str, Any]:
            return _chosen(self.model(**inputs, **fixed, return_dict=True))

    return Chosen()
