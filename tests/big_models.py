"""Models that are large in one way: bytes of weights, nodes, or tiers. For tests and benchmarks.

All are made in seconds: weights are holes of a sparse file, and nodes are all alike.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto as T
from onnx import helper as h

WEIGHTS_NAME = "weights.bin"


def write(path: Path, graph: onnx.GraphProto) -> Path:
    """Writes a model of a graph."""
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def heavy(folder: Path, nbytes: int, layers: int = 40) -> Path:
    """MatMul and Relu over weights of `nbytes` in all, in an external file that is one hole."""
    side = int((nbytes / layers / 4) ** 0.5)
    each = side * side * 4
    nodes, weights = [], []
    for at in range(layers):
        tensor = T(name=f"w{at}", data_type=T.FLOAT, dims=[side, side], data_location=T.EXTERNAL)
        for key, value in (("location", WEIGHTS_NAME), ("offset", at * each), ("length", each)):
            tensor.external_data.add(key=key, value=str(value))
        weights.append(tensor)
        nodes.append(h.make_node("MatMul", [f"v{at}", f"w{at}"], [f"m{at}"]))
        nodes.append(h.make_node("Relu", [f"m{at}"], [f"v{at + 1}"]))
    with (folder / WEIGHTS_NAME).open("wb") as file:
        file.truncate(layers * each)
    x, y = (h.make_tensor_value_info(name, T.FLOAT, [1, side]) for name in ("v0", f"v{layers}"))
    return write(folder / "model.onnx", h.make_graph(nodes, "heavy", [x], [y], weights))


def long(path: Path, count: int) -> Path:
    """`count` nodes in residual blocks of MatMul, Add, Relu, Sigmoid and Add.

    Every tenth of them halves the width, so that there are cuts worth taking.
    """
    nodes, weights, last, width = [], [], "x", 2048
    parts = count // 5
    for at in range(parts):
        if at % max(1, parts // 10) == 0 and width > 4:
            width //= 2
            weights += [_zeros(f"n{width}", 2 * width, width), _zeros(f"w{width}", width, width)]
            nodes.append(h.make_node("MatMul", [last, f"n{width}"], [f"n{at}"]))
            last = f"n{at}"
        nodes += [
            h.make_node("MatMul", [last, f"w{width}"], [f"m{at}"]),
            h.make_node("Add", [f"m{at}", "one"], [f"a{at}"]),
            h.make_node("Relu", [f"a{at}"], [f"r{at}"]),
            h.make_node("Sigmoid", [f"r{at}"], [f"s{at}"]),
            h.make_node("Add", [f"s{at}", last], [f"o{at}"]),
        ]
        last = f"o{at}"
    weights.append(h.make_tensor("one", T.FLOAT, [1], [1.0]))
    x = h.make_tensor_value_info("x", T.FLOAT, [1, 2048])
    y = h.make_tensor_value_info(last, T.FLOAT, [1, width])
    return write(path, h.make_graph(nodes, "long", [x], [y], weights))


def line(path: Path, count: int) -> Path:
    """A line of `count` layers that each have a weight of their own; small enough to run."""
    nodes, weights = [], []
    for at in range(count):
        scale = h.make_tensor(f"w{at}", T.FLOAT, [4], [1.0, -0.5, 0.25 * at, 1 / (at + 1)])
        weights.append(scale)
        nodes.append(h.make_node(("Mul", "Add", "Sub")[at % 3], [f"v{at}", f"w{at}"], [f"v{at + 1}"]))
    x, y = (h.make_tensor_value_info(name, T.FLOAT, [3, 4]) for name in ("v0", f"v{count}"))
    return write(path, h.make_graph(nodes, "line", [x], [y], weights))


def tiers(count: int) -> str:
    """A topology of `count` tiers, each a tenth faster than the one below it, as TOML."""
    lines = [
        f'[[tier]]\nname = "t{at}"\ngflops = {1e-3 * 1.1**at!r}\nusd_per_hour = {0.01 + at!r}\n'
        for at in range(count)
    ]
    lines += ["[[link]]\nbandwidth_mbps = 1000\ndelay_ms = 0\n"] * (count - 1)
    return "\n".join(lines)


def _zeros(name: str, rows: int, columns: int) -> onnx.TensorProto:
    return h.make_tensor(name, T.FLOAT, [rows, columns], bytes(rows * columns * 4), raw=True)
