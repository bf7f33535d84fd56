"""Nested inputs and outputs, flat: tensors by their dotted path, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dnnsplit_onnx.errors import InputError


def flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The tensors in nested mappings and sequences, by their dotted path.

    Raises:
        InputError: Something in there is neither.
    """
    import torch

    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for at, inner in enumerate(value):
            yield from flatten(inner, f"{path}.{at}" if path else str(at))
    elif value is not None:
        raise InputError(
            f"`{path}` is a {type(value).__name__}, not a tensor",
            hint="inputs and outputs are tensors, or mappings and sequences of tensors",
        )


def rebuild(value: Any, path: str, leaves: Mapping[str, Any]) -> Any:
    """The nesting of `value` with other leaves, by their dotted path."""
    import torch

    if isinstance(value, torch.Tensor):
        return leaves[path]
    if isinstance(value, Mapping):
        return {k: rebuild(v, f"{path}.{k}" if path else str(k), leaves) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        parts = [rebuild(v, f"{path}.{at}" if path else str(at), leaves) for at, v in enumerate(value)]
        # A named tuple takes its fields one by one.
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)  # type: ignore[call-arg]
    return value
