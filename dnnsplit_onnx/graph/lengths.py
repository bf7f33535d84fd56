"""Which open dimensions count the tokens of a pass, and which the tokens in the caches.

A decoder reads the tokens of a pass (`input_ids`), a row for each of them and of those before
(`attention_mask`), and caches with a row for each token before. What an open dimension counts
follows from the input that has it:

1. of a state that a pass renews, the dimension that seems to be a length counts past tokens;
2. of a mask, beside such states, one that no other input has counts both;
3. of another input that a pass brings, a length counts its tokens. What a decoder attends to
   (`encoder_...`) is of another text and has a length of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.dimensions import is_name, size_of
from dnnsplit_onnx.graph.graph import Graph, signatures
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.shapes import free_dimensions, value_type
from dnnsplit_onnx.graph.states import is_attended
from dnnsplit_onnx.graph.usual import open_sizes, ports_of

_IDS = re.compile(r"(^|_)(ids?|tokens?|embeds?|embeddings?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Lengths:
    """The dimensions of a decoder that change from pass to pass, by the names that bind them.

    Attributes:
        tokens: Those that count the tokens of a pass.
        past: Those that count the tokens in the caches.
        total: Those that count both together.
        fixed: How many tokens a pass has, where the model leaves it no choice.
    """

    tokens: tuple[str, ...]
    past: tuple[str, ...] = ()
    total: tuple[str, ...] = ()
    fixed: int | None = None

    def sizes(self, tokens: int, past: int) -> dict[str, int]:
        """What to bind for a pass over so many tokens after so many others."""
        return {
            **dict.fromkeys(self.tokens, tokens),
            **dict.fromkeys(self.past, past),
            **dict.fromkeys(self.total, tokens + past),
        }


def lengths_of(graph: Graph, tokens_dim: str | None = None, past_dim: str | None = None) -> Lengths:
    """The dimensions of a model that count tokens.

    Args:
        graph: The model.
        tokens_dim: The dimension that counts the tokens of a pass, where the user says it.
        past_dim: The dimension that counts those in the caches.

    Raises:
        InputError: The user names no open dimension, or no input is seen to bring tokens.
    """
    free = free_dimensions(graph, {})
    for name in (tokens_dim, past_dim):
        if name is not None and name not in free:
            listed = ", ".join(f"`{dim}`" for dim in free)
            raise InputError(
                f"the model has no open dimension `{name}`",
                hint=f"its inputs have {listed}" if listed else "its inputs have none",
            )
    ports = ports_of(graph)
    renewed = {s.input for s in graph.states if s.output is not None and not is_attended(s.input)}
    kept = {state.input for state in graph.states}
    fresh = [port for port in ports if port.name not in kept and not is_attended(port.name)]
    dims = [dim for dim in open_sizes(ports, sorted(kept), {}) if dim.role != "batch"]
    of_states = [d.name for d in dims if d.role in ("past", "length") and renewed.intersection(d.inputs)]
    kept_sizes = _kept_sizes(graph)
    past = tuple(name for name in of_states if name not in kept_sizes) or tuple(of_states)
    past = past if past_dim is None else (past_dim,)
    brought = {port.name for port in fresh}
    masks = {name for name in brought if "mask" in name.lower()}
    counting = [dim for dim in dims if brought.intersection(dim.inputs) and dim.name not in past]
    total = tuple(
        dim.name for dim in counting if renewed and (dim.role == "total" or masks.issuperset(dim.inputs))
    )
    lengths = [dim for dim in counting if dim.role in ("length", "total") and dim.name not in total]
    tokens = tuple(dim.name for dim in lengths) if tokens_dim is None else (tokens_dim,)
    fixed = None if tokens else _fixed(fresh)
    if not tokens and fixed is None:
        raise InputError(
            "no input of the model is seen to bring tokens, and the workload is of texts",
            context=f"in {graph.file.path.name}",
            hint='say which dimension counts them: tokens_dim = "..." in [workload]',
        )
    return Lengths(tokens, past, tuple(name for name in total if name not in tokens), fixed)


def _kept_sizes(graph: Graph) -> set[str]:
    """The dimensions of states that a pass leaves as they are, such as a head's width."""
    read, made = signatures(graph.proto.graph, graph.inputs)
    kept: set[str] = set()
    for state in graph.states:
        before, after = read.get(state.input), made.get(state.output or "")
        if before is not None and after is not None:
            pairs = zip(before[1] or (), after[1] or (), strict=False)
            kept.update(str(one) for one, other in pairs if one == other and is_name(one))
    return kept


def _fixed(fresh: list[Port]) -> int | None:
    """The tokens of a pass, where the file says how many there are."""
    for port in fresh:
        shape = port.shape or ()
        if _IDS.search(port.name) and len(shape) > 1 and isinstance(shape[1], int):
            return shape[1]
    return None


def state_nbytes(graph: Graph, bindings: Mapping[str, int]) -> dict[str, int | None]:
    """Bytes of each state's input at some sizes; None where they leave a dimension open."""
    kept = {state.input for state in graph.states}
    found: dict[str, int | None] = {}
    for value in graph.proto.graph.input:
        if value.name in kept:
            known = value_type(value.type)
            sizes = (size_of(dim, value.name, axis, bindings) for axis, dim in enumerate(known.shape or ()))
            shape = None if known.shape is None else tuple(sizes)
            found[value.name] = replace(known, shape=shape).nbytes
    return found
