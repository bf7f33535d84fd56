"""What is refused before it is begun: texts too long, vocabularies that differ, too little memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx

from dnnsplit_onnx.errors import InputError, RequestError
from dnnsplit_onnx.graph.modelfile import open_model
from dnnsplit_onnx.running.caches import caches_nbytes
from dnnsplit_onnx.running.generating.decoder import Signature

# What of its inputs an operator passes on as sizes alone.
_RANK = 3
_SIZES = frozenset({"Shape", "Size"})


def vocabulary_of(signature: Signature) -> int | None:
    """How many tokens the model knows; None where its file does not say."""
    if signature.head is not None:
        return signature.head.words
    logits = [p for p in signature.outputs if p.shape and ("logits" in p.name or len(p.shape) == _RANK)]
    last = logits[0].shape[-1] if len(logits) == 1 and logits[0].shape else None
    return last if isinstance(last, int) else None


def check_vocabulary(words: int, signature: Signature, what: str) -> None:
    """Refuses a tokenizer of more words than the model has.

    Args:
        words: How many it has.
        signature: Of the model.
        what: What errors call it.

    Raises:
        InputError: It has more.
    """
    known = vocabulary_of(signature)
    if known is not None and words > known:
        raise InputError(
            f"{what} has {words} tokens, and the model {known}", hint="pass the tokenizer of this model"
        )


def check_prompt(ids: Sequence[int], signature: Signature, longest: int | None) -> None:
    """Refuses a prompt that the model cannot read.

    Raises:
        InputError: It is empty, has a token that the model lacks, or is too long.
    """
    if not ids:
        raise InputError("the prompt has no tokens", hint="write some words: --prompt TEXT")
    known = vocabulary_of(signature)
    for token in ids:
        if token < 0 or (known is not None and token >= known):
            raise InputError(f"token {token} is none of the model's {known or ''}".rstrip())
    if longest is not None and len(ids) >= longest:
        raise InputError(
            f"the prompt has {len(ids)} tokens; the model has {longest} positions, for it and what follows"
        )


def check_memory(signature: Signature, positions: int) -> None:
    """Refuses a text whose caches are more than there is memory on this machine.

    Raises:
        RequestError: They are.
    """
    each = caches_nbytes(signature.states, signature.records, positions)
    free = free_nbytes()
    if each is not None and free is not None and each > free:
        raise RequestError(
            f"the caches of {positions} tokens take {each / 1e9:.3g} GB; {free / 1e9:.3g} GB are free",
            hint="ask for fewer new tokens: --max-new",
        )


def free_nbytes() -> int | None:
    """Memory that is free on this machine; None where nothing tells."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def positions_of(models: Iterable[Path]) -> int | None:
    """The rows of the least table that a model looks up by positions; None if there is none.

    Args:
        models: The model's file, or those of its slices.

    Raises:
        ModelError: One is no model.
    """
    rows = [n for path in models for n in _tables(open_model(path).proto.graph)]
    return min(rows, default=None)


def _tables(graph: onnx.GraphProto) -> Iterable[int]:
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "Gather" and len(weights.get(node.input[0], ())) == 2 and not _axis(node):
            read, by_size = _read_by_value(node.input[1], makers)
            places = read - weights.keys()
            if (places or by_size) and all("position" in name for name in places):
                yield weights[node.input[0]][0]


def _axis(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)


def _read_by_value(name: str, makers: dict[str, onnx.NodeProto]) -> tuple[set[str], bool]:
    """The inputs whose values a value is made of, and whether it is made of sizes, too."""
    found: set[str] = set()
    by_size, left, seen = False, [name], {name}
    while left:
        node = makers.get(name := left.pop())
        if node is None:
            found.add(name)
        elif node.op_type in _SIZES:
            by_size = True
        else:
            new = [value for value in node.input if value and value not in seen]
            seen.update(new)
            left += new
    return found, by_size
