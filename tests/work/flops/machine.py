"""A machine that counts what it computes, and operators written for it as their definitions say.

Each function computes a real result, one number at a time, so that a test can hold the result against an
independent implementation before it believes the count.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from dnnsplit_onnx.work.flops import Work

Array = npt.NDArray[np.float64]


class Machine:
    """Counts multiply-adds and other operations as they happen."""

    def __init__(self) -> None:
        self.macs = 0
        self.elementwise = 0

    @property
    def work(self) -> Work:
        return Work(self.macs, self.elementwise)

    def mac(self, total: float, a: float, b: float) -> float:
        self.macs += 1
        return total + a * b

    def op(self, value: float) -> float:
        """Counts the one operation whose value this is."""
        self.elementwise += 1
        return value

    def sigmoid(self, x: float) -> float:
        x = self.op(-x)
        x = self.op(math.exp(x))
        x = self.op(1 + x)
        return self.op(1 / x)

    def tanh(self, x: float) -> float:
        return self.op(math.tanh(x))

    def product(
        self, x: Sequence[float] | Array, w: Array, h: Sequence[float] | Array, r: Array
    ) -> list[float]:
        """Wx + Rh, one accumulator per row."""
        totals = []
        for row_w, row_r in zip(w, r, strict=True):
            total = 0.0
            for a, b in itertools.chain(zip(x, row_w, strict=True), zip(h, row_r, strict=True)):
                total = self.mac(total, a, b)
            totals.append(total)
        return totals


def positions(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, shape))


def _tap(image: Array, at: Sequence[int]) -> float:
    inside = all(0 <= i < size for i, size in zip(at, image.shape, strict=True))
    return float(image[tuple(at)]) if inside else 0.0


def conv(
    machine: Machine,
    x: Array,
    w: Array,
    bias: Array | None,
    *,
    group: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
) -> Array:
    """A direct convolution that multiplies by the zeros of the padding, too."""
    spatial, kernel = x.shape[2:], w.shape[2:]
    d = len(spatial)
    size = [
        (spatial[i] + pads[i] + pads[i + d] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i in range(d)
    ]
    y = np.zeros((x.shape[0], w.shape[0], *size))
    for n, m, *at in positions(y.shape):
        first = m // (w.shape[0] // group) * w.shape[1]
        total = 0.0
        for c, *k in positions(w.shape[1:]):
            where = [at[i] * strides[i] + k[i] * dilations[i] - pads[i] for i in range(d)]
            total = machine.mac(total, _tap(x[n, first + c], where), w[(m, c, *k)])
        if bias is not None:
            total = machine.op(total + bias[m])
        y[(n, m, *at)] = total
    return y


def conv_transpose(machine: Machine, x: Array, w: Array, *, group: int, strides: Sequence[int]) -> Array:
    """Every input element is spread over the output by a whole filter."""
    d, kernel = x.ndim - 2, w.shape[2:]
    size = [(x.shape[2 + i] - 1) * strides[i] + kernel[i] for i in range(d)]
    y = np.zeros((x.shape[0], w.shape[1] * group, *size))
    for n, c, *at in positions(x.shape):
        first = c // (x.shape[1] // group) * w.shape[1]
        for m, *k in positions(w.shape[1:]):
            to = (n, first + m, *(at[i] * strides[i] + k[i] for i in range(d)))
            y[to] = machine.mac(y[to], x[(n, c, *at)], w[(c, m, *k)])
    return y


def pool(
    machine: Machine, x: Array, kernel: Sequence[int], strides: Sequence[int], *, average: bool
) -> Array:
    d = len(kernel)
    size = [(x.shape[2 + i] - kernel[i]) // strides[i] + 1 for i in range(d)]
    y = np.zeros((*x.shape[:2], *size))
    for n, c, *at in positions(y.shape):
        folded = 0.0 if average else -math.inf
        for k in positions(kernel):
            value = x[(n, c, *(at[i] * strides[i] + k[i] for i in range(d)))]
            folded = machine.op(folded + value if average else max(folded, value))
        y[(n, c, *at)] = machine.op(folded / math.prod(kernel)) if average else folded
    return y


def matmul(machine: Machine, a: Array, b: Array) -> Array:
    """numpy.matmul, by loops."""
    left, right = a if a.ndim > 1 else a[None, :], b if b.ndim > 1 else b[:, None]
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, (*batch, *left.shape[-2:]))
    right = np.broadcast_to(right, (*batch, *right.shape[-2:]))
    y = np.zeros((*batch, left.shape[-2], right.shape[-1]))
    for *n, i, j in positions(y.shape):
        total = 0.0
        for k in range(left.shape[-1]):
            total = machine.mac(total, left[(*n, i, k)], right[(*n, k, j)])
        y[(*n, i, j)] = total
    y = y if a.ndim > 1 else y[..., 0, :]
    return y if b.ndim > 1 else y[..., 0]


def einsum(machine: Machine, terms: Sequence[str], result: str, operands: Sequence[Array]) -> Array:
    """One loop nest over every index of two operands."""
    sizes = {
        i: n for term, x in zip(terms, operands, strict=True) for i, n in zip(term, x.shape, strict=True)
    }
    indices = sorted(sizes)
    y = np.zeros([sizes[i] for i in result])
    summed = set(indices) - set(result)
    for values in positions([sizes[i] for i in indices]):
        at = dict(zip(indices, values, strict=True))
        a, b = (x[tuple(at[i] for i in term)] for term, x in zip(terms, operands, strict=True))
        to = tuple(at[i] for i in result)
        y[to] = machine.mac(y[to], a, b) if summed else machine.op(a * b)
    return y


def softmax(machine: Machine, row: Sequence[float]) -> list[float]:
    top = -math.inf
    for x in row:
        top = machine.op(max(top, x))
    powers = [machine.op(math.exp(machine.op(x - top))) for x in row]
    total = 0.0
    for x in powers:
        total = machine.op(total + x)
    return [machine.op(x / total) for x in powers]


def attention(machine: Machine, q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    """(batch, heads, length, size); each key-value head serves a run of query heads."""
    y = np.zeros((*q.shape[:3], v.shape[3]))
    for n, h, i in positions(q.shape[:3]):
        served = h // (q.shape[1] // k.shape[1])
        scores = []
        for j in range(k.shape[2]):
            total = 0.0
            for d in range(q.shape[3]):
                total = machine.mac(total, q[n, h, i, d], k[n, served, j, d])
            total = machine.op(total / math.sqrt(q.shape[3]))
            scores.append(machine.op(total + mask[i, j]) if mask is not None else total)
        for j, p in enumerate(softmax(machine, scores)):
            for d in range(v.shape[3]):
                y[n, h, i, d] = machine.mac(y[n, h, i, d], p, v[n, served, j, d])
    return y


def layer_norm(machine: Machine, x: Array, scale: Array, bias: Array | None, epsilon: float) -> Array:
    """Over the last axis."""
    y = np.zeros_like(x)
    for at in positions(x.shape[:-1]):
        total = 0.0
        for value in x[at]:
            total = machine.op(total + value)
        mean = machine.op(total / x.shape[-1])
        centred = [machine.op(value - mean) for value in x[at]]
        total = 0.0
        for value in centred:
            total = machine.op(total + machine.op(value * value))
        deviation = machine.op(math.sqrt(machine.op(machine.op(total / x.shape[-1]) + epsilon)))
        for i, value in enumerate(centred):
            scaled = machine.op(machine.op(value / deviation) * scale[i])
            y[(*at, i)] = machine.op(scaled + bias[i]) if bias is not None else scaled
    return y


def _biased(machine: Machine, totals: Sequence[float], b: Array | None) -> list[float]:
    """The bias of the input and the bias of the recurrence, each added to each gate."""
    if b is None:
        return list(totals)
    half = len(totals)
    return [machine.op(machine.op(t + b[i]) + b[half + i]) for i, t in enumerate(totals)]


def rnn_cell(machine: Machine, x: Array, h: Array, w: Array, r: Array, b: Array | None) -> Array:
    return np.array([machine.tanh(t) for t in _biased(machine, machine.product(x, w, h, r), b)])


def lstm_cell(
    machine: Machine, x: Array, h: Array, c: Array, w: Array, r: Array, b: Array | None, p: Array | None
) -> tuple[Array, Array]:
    """Gates in ONNX's order: input, output, forget, cell; peepholes input, output, forget."""
    units = len(h)
    totals = _biased(machine, machine.product(x, w, h, r), b)
    new_h, new_c = np.zeros(units), np.zeros(units)

    def peep(total: float, gate: int, u: int, state: float) -> float:
        return total if p is None else machine.op(total + machine.op(p[gate * units + u] * state))

    for u in range(units):
        i = machine.sigmoid(peep(totals[u], 0, u, c[u]))
        f = machine.sigmoid(peep(totals[2 * units + u], 2, u, c[u]))
        g = machine.tanh(totals[3 * units + u])
        new_c[u] = machine.op(machine.op(f * c[u]) + machine.op(i * g))
        o = machine.sigmoid(peep(totals[units + u], 1, u, new_c[u]))
        new_h[u] = machine.op(o * machine.tanh(new_c[u]))
    return new_h, new_c


def gru_cell(
    machine: Machine, x: Array, h: Array, w: Array, r: Array, b: Array | None, *, linear_before_reset: bool
) -> Array:
    """Gates in ONNX's order: update, reset, hidden."""
    units = len(h)
    bw, br = (b[: 3 * units], b[3 * units :]) if b is not None else (None, None)

    def biased(totals: list[float], *biases: Array | None) -> list[float]:
        for bias in biases:
            if bias is not None:
                totals = [machine.op(t + value) for t, value in zip(totals, bias, strict=True)]
        return totals

    def part(array: Array | None, gate: int) -> Array | None:
        return None if array is None else array[gate * units : (gate + 1) * units]

    def rows(array: Array, gate: int) -> Array:
        return array[gate * units : (gate + 1) * units]

    def gate(number: int) -> list[float]:
        totals = machine.product(x, rows(w, number), h, rows(r, number))
        return [machine.sigmoid(t) for t in biased(totals, part(bw, number), part(br, number))]

    none = np.zeros((units, 0))
    z, reset = gate(0), gate(1)
    if linear_before_reset:
        of_state = biased(machine.product([], none, h, rows(r, 2)), part(br, 2))
        of_input = biased(machine.product(x, rows(w, 2), [], none), part(bw, 2))
        scaled = [machine.op(a * t) for a, t in zip(reset, of_state, strict=True)]
        totals = [machine.op(a + t) for a, t in zip(of_input, scaled, strict=True)]
    else:
        scaled = [machine.op(a * t) for a, t in zip(reset, h, strict=True)]
        totals = biased(machine.product(x, rows(w, 2), scaled, rows(r, 2)), part(bw, 2), part(br, 2))
    candidate = [machine.tanh(t) for t in totals]
    return np.array(
        [
            machine.op(machine.op(machine.op(1 - a) * new) + machine.op(a * old))
            for a, new, old in zip(z, candidate, h, strict=True)
        ]
    )
