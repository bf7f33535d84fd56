"""Recurrent layers, by the equations of their operators.

Per step, batch element and direction, for input size I and hidden size H and G gates: the MACs are
G x H x (I + H), the two matrix products. The rest is element-wise: the biases (two per gate and unit: of
the input and of the recurrence), peepholes (a multiplication and an addition each), the activations, and
the update of the state. A `clip` bounds the argument of each gate's activation: 2.

Sequences count at their lengths if `sequence_lens` is a constant, else at the full length of the input.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dnnsplit_onnx.work.flops.elementwise import activation_operations
from dnnsplit_onnx.work.flops.quantization import DYNAMIC_QUANTIZE
from dnnsplit_onnx.work.flops.registry import MICROSOFT, register
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork, exact_division
from dnnsplit_onnx.work.flops.work import Work


class _Layer(NamedTuple):
    """The sizes of a recurrent layer.

    Attributes:
        cells: Executions of a cell in one direction: steps summed over the batch.
        directions: 1 or 2.
        inputs: I.
        hidden: H.
        operations: Operations per element of each activation, one tuple per direction.
    """

    cells: int
    directions: int
    inputs: int
    hidden: int
    operations: tuple[tuple[int, ...], ...]

    def macs(self, gates: int) -> int:
        return self.cells * self.directions * gates * self.hidden * (self.inputs + self.hidden)

    def elementwise(self, per_unit: list[int]) -> int:
        """Operations of all cells, from those per unit of each direction."""
        return self.cells * self.hidden * sum(per_unit)


def _layer(node: NodeView, gates: int, defaults: tuple[str, ...], *, transposed: bool = False) -> _Layer:
    first, second, inputs = node.input_shape(0, 3)  # steps and batch, in the order that `layout` says
    recurrence = node.input_shape(2, 3)
    # Weights are (directions, gates x H, H), in DynamicQuantizeLSTM (directions, H, gates x H).
    directions, width = recurrence[0], recurrence[2 if transposed else 1]
    names = node.texts_attribute("activations") or defaults * directions
    if directions not in (1, 2) or len(names) != directions * len(defaults):
        raise UnknownWork
    counts = [activation_operations(name) for name in names]
    per_direction = len(defaults)
    return _Layer(
        cells=_cells(node, first * second),
        directions=directions,
        inputs=inputs,
        hidden=exact_division(width, gates),
        operations=tuple(
            tuple(counts[start : start + per_direction]) for start in range(0, len(counts), per_direction)
        ),
    )


def _cells(node: NodeView, full: int) -> int:
    lengths = node.constant(4)
    return full if lengths is None else int(lengths.astype(np.int64).sum())


def _clip(node: NodeView, gates: int) -> int:
    return 2 * gates if node.attribute("clip") is not None else 0


@register("RNN")
def rnn(node: NodeView) -> Work:
    """RNN: H (I + H) MACs per cell; per unit the biases (2) and the activation (Tanh: 1)."""
    layer = _layer(node, 1, ("Tanh",))
    fixed = 2 * node.has_input(3) + _clip(node, 1)
    return Work(layer.macs(1), layer.elementwise([fixed + f for (f,) in layer.operations]))


@register("GRU")
def gru(node: NodeView) -> Work:
    """GRU: 3 H (I + H) MACs per cell; per unit 14, and 6 for the biases.

    14 is two gates (Sigmoid: 4 each), the candidate (Tanh: 1), the reset gate times its operand (1) and
    `(1 - z) * h + z * H` (4). With `linear_before_reset` the reset gate scales the product instead of the
    state, and one addition joins it to the rest.
    """
    layer = _layer(node, 3, ("Sigmoid", "Tanh"))
    joins = 1 if node.int_attribute("linear_before_reset", 0) else 0
    fixed = 1 + joins + 4 + 6 * node.has_input(3) + _clip(node, 3)
    return Work(layer.macs(3), layer.elementwise([fixed + 2 * f + g for f, g in layer.operations]))


@register("LSTM")
def lstm(node: NodeView) -> Work:
    """LSTM: 4 H (I + H) MACs per cell; per unit 18, 8 for the biases, 6 for the peepholes.

    18 is three gates (Sigmoid: 4 each), the candidate and the output (Tanh: 1 each),
    `f * C + i * c` (3) and `o * h(C)` (1). With `input_forget` the forget gate is `1 - i` (1).
    """
    layer = _layer(node, 4, ("Sigmoid", "Tanh", "Tanh"))
    return Work(layer.macs(4), layer.elementwise(_lstm_units(node, layer)))


def _lstm_units(node: NodeView, layer: _Layer) -> list[int]:
    coupled = node.int_attribute("input_forget", 0)
    fixed = 4 + 8 * node.has_input(3) + 6 * node.has_input(7) + _clip(node, 4)
    return [fixed + 2 * f + (1 if coupled else f) + g + h for f, g, h in layer.operations]


@register("DynamicQuantizeLSTM", domain=MICROSOFT)
def dynamic_quantize_lstm(node: NodeView) -> Work:
    """DynamicQuantizeLSTM: LSTM, and around its two integer products per cell 6 (I + H) + 2 (4 H).

    The input and the state are quantized (6 per element); each of the two products is scaled back (1).
    """
    layer = _layer(node, 4, ("Sigmoid", "Tanh", "Tanh"), transposed=True)
    lstm_work = Work(layer.macs(4), layer.elementwise(_lstm_units(node, layer)))
    quantization = DYNAMIC_QUANTIZE * (layer.inputs + layer.hidden) + 2 * 4 * layer.hidden
    return lstm_work + Work(elementwise=layer.cells * layer.directions * quantization)
