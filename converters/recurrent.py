"""Recurrent layers as ONNX's own operators, for any number of steps, while a model is exported.

torch's exporter unrolls them step by step, or writes one operator and forgets that the number
of steps is open. Here each layer of a direction pair becomes one `LSTM`, `GRU` or `RNN`, its
weights brought into ONNX's order before the export so that nothing is left to do at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

# Where ONNX's gates stand among torch's: input, output, forget, cell; update, reset, new.
_TORCH_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of one operator in ONNX's order.

    Attributes:
        inputs: [directions, gates * hidden, features].
        states: [directions, gates * hidden, hidden].
        bias: [directions, 2 * gates * hidden], None for a layer without.
    """

    inputs: Any
    states: Any
    bias: Any | None


def reordered(matrix: Any, gates: Sequence[int]) -> Any:
    """The rows of a matrix, or the elements of a bias, in another order of the gates."""
    import torch

    parts = torch.chunk(matrix, len(gates), dim=0)
    return torch.cat([parts[gate] for gate in gates], dim=0)


def operator(
    kind: str, steps: Any, weights: Weights, initial: Sequence[Any], attributes: Mapping[str, Any]
) -> tuple[Any, list[Any]]:
    """One recurrent operator of ONNX; what it gives has shapes alone, so it is for exports only.

    Args:
        kind: `LSTM`, `GRU` or `RNN`.
        steps: [steps, batch, features].
        weights: In ONNX's order.
        initial: The states at the first step, [directions, batch, hidden] each; none for zeros.
        attributes: Further attributes of the node.

    Returns:
        The outputs, [steps, directions, batch, hidden], and the last states.
    """
    import torch

    length, batch = steps.shape[:2]
    directions, _, hidden = weights.states.shape
    state = [directions, batch, hidden]
    shapes = [[length, *state], *[state] * (2 if kind == "LSTM" else 1)]
    outputs = torch.onnx.ops.symbolic_multi_out(
        kind,
        (steps, weights.inputs, weights.states, weights.bias, None, *initial),
        {"hidden_size": hidden, **attributes},
        dtypes=[steps.dtype] * len(shapes),
        shapes=shapes,
    )
    return outputs[0], list(outputs[1:])


@contextmanager
def recurrent_operators(module: Any) -> Iterator[None]:
    """Lets the recurrent layers of a PyTorch module run as operators, to export it.

    Layers in half precision, which onnxruntime does not run, and projected ones, for which ONNX
    has no form, are left to torch's exporter.
    """
    import torch

    kinds = {torch.nn.LSTM: "LSTM", torch.nn.GRU: "GRU", torch.nn.RNN: "RNN"}
    with ExitStack() as stack:
        for layer in list(module.modules()):
            kind = kinds.get(type(layer))
            if kind and not layer.proj_size and layer.weight_ih_l0.dtype == torch.float32:
                weights = _registered(layer, kind, stack)
                stack.callback(delattr, layer, "forward")
                layer.forward = partial(_forward, layer, kind, weights)
        yield


def _registered(layer: Any, kind: str, stack: ExitStack) -> list[Callable[[], Weights]]:
    """Adds a layer's weights in ONNX's order to it until the stack is closed.

    Returns:
        The weights of each of its operators, to be called for while it runs: torch puts others in
        their place when it exports.
    """
    import torch

    ends = [f"l{at}{end}" for at in range(layer.num_layers) for end in _directions(layer)]
    per_operator = len(_directions(layer))
    weights: list[Callable[[], Weights]] = []
    for at in range(layer.num_layers):
        names: list[str | None] = []
        for part in ("weight_ih", "weight_hh", "bias"):
            if part == "bias" and not layer.bias:
                names.append(None)
                continue
            sides = ("bias_ih", "bias_hh") if part == "bias" else (part,)
            value = torch.stack(
                [
                    torch.cat(
                        [reordered(getattr(layer, f"{s}_{end}").detach(), _TORCH_GATES[kind]) for s in sides]
                    )
                    for end in ends[at * per_operator : (at + 1) * per_operator]
                ]
            )
            name = f"onnx_{part}_l{at}"
            layer.register_buffer(name, value, persistent=False)
            stack.callback(delattr, layer, name)
            names.append(name)
        weights.append(partial(_held, layer, names))
    return weights


def _held(layer: Any, names: Sequence[str | None]) -> Weights:
    return Weights(*(None if name is None else getattr(layer, name) for name in names))


def _directions(layer: Any) -> tuple[str, ...]:
    return ("", "_reverse") if layer.bidirectional else ("",)


def _forward(
    layer: Any, kind: str, weights: Sequence[Callable[[], Weights]], input: Any, hx: Any = None
) -> Any:
    """What `forward` of a recurrent layer gives, by operators."""
    import torch

    if not isinstance(input, torch.Tensor) or input.dim() != 3:  # packed, or without a batch
        return type(layer).forward(layer, input, hx)
    steps = input.transpose(0, 1) if layer.batch_first else input
    count = len(_directions(layer))
    given = () if hx is None else hx if kind == "LSTM" else (hx,)
    attributes: dict[str, Any] = {"direction": "bidirectional"} if count == 2 else {}
    if kind == "GRU":
        attributes["linear_before_reset"] = 1
    if kind == "RNN":
        attributes["activations"] = ["Relu" if layer.nonlinearity == "relu" else "Tanh"] * count
    last: list[list[Any]] = []
    for at, held in enumerate(weights):
        initial = [state[at * count : (at + 1) * count] for state in given]
        outputs, states = operator(kind, steps, held(), initial, attributes)
        steps = outputs.transpose(1, 2).flatten(2) if count == 2 else outputs.squeeze(1)
        last.append(states)
    ends = [torch.cat(states) if len(last) > 1 else states[0] for states in zip(*last, strict=True)]
    return (
        steps.transpose(0, 1) if layer.batch_first else steps,
        (ends[0], ends[1]) if kind == "LSTM" else ends[0],
    )
