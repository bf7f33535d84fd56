"""Keras's layers over steps, for any number of these, while a model is exported on the torch backend.

Keras walks over the steps in Python, which fixes their number, and often the batch, and writes
each of them out.

1. LSTM, GRU and SimpleRNN without a mask, with activations that ONNX knows, become its operator.
2. All others (masks, convolutions, cells of the author's) become a Scan over their cell.
3. What its author wants unrolled stays as Keras writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from dnnsplit_onnx.converters.recurrent import Weights, operator, reordered

# Where ONNX's gates stand among Keras's: input, forget, cell, output; update, reset, new.
_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (0, 1, 2), "RNN": (0,)}
_ACTIVATIONS = {"tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu"}


@contextmanager
def recurrent_layers(model: Any) -> Iterator[None]:
    """Replaces the loops of a model's recurrent layers."""
    from keras import layers

    prepared = {id(layer): _prepared(layer) for layer in model._flatten_layers() if _kind(layer)}
    with ExitStack() as stack:
        for owner in (layers.RNN, layers.LSTM, layers.GRU):  # the others inherit RNN's
            loop = _loop(owner.inner_loop, prepared)
            stack.enter_context(mock.patch.object(owner, "inner_loop", loop))
        yield


def _kind(layer: Any) -> str | None:
    """The operator that a layer becomes, None for a Scan."""
    from keras import layers

    kinds = {layers.LSTM: "LSTM", layers.GRU: "GRU", layers.SimpleRNN: "RNN"}
    kind = kinds.get(type(layer))
    cell: Any = getattr(layer, "cell", None)
    if kind is None or not getattr(cell, "built", False) or cell.compute_dtype != "float32":
        return None
    return kind if None not in _activations(cell) else None


def _activations(cell: Any) -> list[str | None]:
    """A cell's activations as ONNX lists them: of the gates, of the new value, of the output."""
    inner = [cell.recurrent_activation] if hasattr(cell, "recurrent_activation") else []
    outer = [cell.activation] * (2 if type(cell).__name__ == "LSTMCell" else 1)
    return [_ACTIVATIONS.get(getattr(function, "__name__", "")) for function in (*inner, *outer)]


def _prepared(layer: Any) -> Weights:
    """The weights of a layer in ONNX's order."""
    import torch

    gates, cell = _GATES[_kind(layer) or ""], layer.cell
    inputs, states = (variable.value.detach().T for variable in (cell.kernel, cell.recurrent_kernel))
    bias = None
    if cell.use_bias:
        given = cell.bias.value.detach()
        # A GRU that resets after the product has a bias of each side; else there is one.
        sides = list(given) if given.ndim == 2 else [given, torch.zeros_like(given)]
        bias = torch.cat([reordered(side, gates) for side in sides]).unsqueeze(0)
    return Weights(reordered(inputs, gates).unsqueeze(0), reordered(states, gates).unsqueeze(0), bias)


def _loop(own: Callable[..., Any], prepared: Mapping[int, Weights]) -> Callable[..., Any]:
    """The loop of one class of layers, instead of its own."""

    def inner_loop(
        self: Any, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> tuple[Any, Any, Any]:
        import keras

        mask = mask[0] if keras.tree.is_nested(mask) else mask
        if keras.tree.is_nested(sequences) or self.unroll:
            return own(self, sequences, initial_state, mask, training)  # type: ignore[no-any-return]
        if mask is None and id(self) in prepared:
            return _by_operator(self, prepared[id(self)], sequences, keras.tree.flatten(initial_state))
        return _by_scan(self, sequences, initial_state, mask)

    return inner_loop


def _by_operator(
    layer: Any, weights: Weights, sequences: Any, initial: Sequence[Any]
) -> tuple[Any, Any, list[Any]]:
    kind = _kind(layer) or ""
    attributes: dict[str, Any] = {"activations": _activations(layer.cell)}
    if kind == "GRU":
        attributes["linear_before_reset"] = int(layer.cell.reset_after)
    outputs, states = operator(
        kind, _steps(layer, sequences), weights, [state.unsqueeze(0) for state in initial], attributes
    )
    whole = outputs.squeeze(1).transpose(0, 1)
    last = [state.squeeze(0) for state in states]
    return last[0], whole, last


def _steps(layer: Any, sequences: Any) -> Any:
    """The steps of a batch of sequences in the order in which a layer walks over them."""
    steps = sequences.transpose(0, 1)
    return steps.flip(0) if layer.go_backwards else steps


def _by_scan(layer: Any, sequences: Any, initial: Any, mask: Any) -> tuple[Any, Any, Any]:
    """Runs a layer's cell in a Scan."""
    import keras
    import torch
    from torch._higher_order_ops.scan import scan_op

    states, variables = keras.tree.flatten(initial), list(layer.cell.weights)
    steps = [_steps(layer, sequences)] + ([] if mask is None else [_steps(layer, mask.bool())])

    def cell(inputs: Any, held: Sequence[Any], values: Sequence[Any]) -> tuple[Any, list[Any]]:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            output, new = layer.cell(inputs, keras.tree.pack_sequence_as(initial, list(held)))
        return output, keras.tree.flatten(new)

    def step(*given: Any) -> list[Any]:
        held, before = given[: len(states)], given[len(states) : len(carried)]
        inputs, values = given[len(carried)], given[len(carried) + len(steps) :]
        output, new = cell(inputs, held, values)
        if mask is not None:
            counts = given[len(carried) + 1]
            output = _where(counts, output, before[0])
            new = [_where(counts, value, old) for value, old in zip(new, held, strict=True)]
            kept = torch.zeros_like(output) if layer.zero_output_for_mask else output
            return [*new, kept, output.clone()]
        # What is carried and what is given may not be one tensor.
        return [*(value.clone() for value in new), output.clone()]

    # A copy is of the trace, as what a Scan takes has to be; Keras holds the weights themselves.
    values = [variable.value.clone() for variable in variables]
    carried = list(states)
    if mask is not None:  # an output that is masked is the one before, zero at first
        carried.append(torch.zeros(cell(steps[0][0], states, values)[0].shape))
    results = scan_op(step, carried, steps, values)
    whole = results[-1].transpose(0, 1)
    return whole[:, -1], whole, keras.tree.pack_sequence_as(initial, list(results[: len(states)]))


def _where(counts: Any, new: Any, old: Any) -> Any:
    """The new value where a sample's step counts, else the old one."""
    import torch

    return torch.where(counts.reshape(-1, *[1] * (new.ndim - 1)), new, old)
