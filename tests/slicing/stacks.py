"""Random stacks of operators that have rows, for tests of tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

OPSET = 18


class Stack:
    """Grows a network of images layer by layer, knowing the shape of every value.

    Args:
        rng: Draws everything.
        height, width: Of the input.
    """

    def __init__(self, rng: np.random.Generator, height: int = 37, width: int = 19) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shape: tuple[int, ...] = (2, 4, height, width)
        self.value = "x"
        self.shapes: dict[str, tuple[int, ...]] = {"x": self.shape}
        self.input_shape = self.shape

    def weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(nh.from_array(array, name))
        return name

    def floats(self, *shape: int) -> str:
        return self.weight(
            (self.rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)
        )

    def pick(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def add(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> list[str]:
        names = [f"v{len(self.nodes)}_{at}" for at in range(outputs)]
        self.nodes.append(h.make_node(op, list(inputs), names, name=f"n{len(self.nodes)}", **attributes))
        return names

    def become(self, value: str, shape: Sequence[int]) -> None:
        self.value, self.shape = value, tuple(shape)
        self.shapes[value] = self.shape

    # -- layers ----------------------------------------------------------------------------------

    def window(self, *, dilates: bool = True) -> tuple[dict[str, Any], tuple[int, int]]:
        """Attributes of a window, and the size of what it makes; small enough to fit."""
        _, _, *image = self.shape
        kernel = [int(self.rng.integers(1, min(4, size) + 1)) for size in image]
        dilations = [
            self.pick(1, 1, 2) if 1 < k <= size // 2 and dilates else 1
            for k, size in zip(kernel, image, strict=True)
        ]
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        strides = [int(self.rng.integers(1, 3)) for _ in image]
        attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
        if dilates:
            attributes["dilations"] = dilations
        mode = self.pick("NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
        if mode.startswith("SAME") and any(k < s for k, s in zip(kernel, strides, strict=True)):
            mode = "VALID"  # onnxruntime refuses the padding that it chooses for some pools
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            attributes["auto_pad"] = mode
            attributes.pop("dilations", None)  # onnxruntime refuses the two together, or ignores one
            return attributes, tuple(-(-n // s) for n, s in zip(image, strides, strict=True))  # type: ignore[return-value]
        pads = [0] * 4
        if mode == "NOTSET":
            # onnxruntime pools refuse padding as large as the kernel
            pads = [int(self.rng.integers(0, kernel[at % 2])) for at in range(4)]
            attributes["pads"] = pads
        else:
            attributes["auto_pad"] = mode
        made = [(n + pads[at] + pads[2 + at] - spans[at]) // strides[at] + 1 for at, n in enumerate(image)]
        return attributes, (made[0], made[1])

    def conv(self) -> None:
        batch, channels, *_ = self.shape
        group = self.pick(1, 1, 2, channels) if channels % 2 == 0 else 1
        results = group * int(self.rng.integers(1, 4))
        attributes, image = self.window()
        kernel = attributes["kernel_shape"]
        inputs = [self.value, self.floats(results, channels // group, *kernel)]
        if self.pick(True, False):
            inputs.append(self.floats(results))
        self.become(self.add("Conv", inputs, group=group, **attributes)[0], (batch, results, *image))

    def pool(self) -> None:
        op = self.pick("MaxPool", "AveragePool", "LpPool")
        attributes, image = self.window(dilates=op == "MaxPool")
        if op == "AveragePool":
            attributes["count_include_pad"] = self.pick(0, 1)
        if op != "LpPool" and "auto_pad" not in attributes and self.pick(True, False):
            attributes["ceil_mode"] = 1
            image = self._ceiling(attributes)
        self.become(self.add(op, [self.value], **attributes)[0], (*self.shape[:2], *image))

    def _ceiling(self, attributes: dict[str, Any]) -> tuple[int, int]:
        made = []
        for at, size in enumerate(self.shape[2:]):
            stride, pads = attributes["strides"][at], attributes["pads"]
            span = (attributes["kernel_shape"][at] - 1) * attributes.get("dilations", (1, 1))[at] + 1
            count = -(-(size + pads[at] + pads[2 + at] - span) // stride) + 1
            if (count - 1) * stride >= size + pads[at]:
                count -= 1
            made.append(count)
        return made[0], made[1]

    def activation(self) -> None:
        op = self.pick("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "Abs")
        self.become(self.add(op, [self.value])[0], self.shape)

    def scale(self) -> None:
        """A broadcast: over channels, over rows, over everything."""
        _, c, height, w = self.shape
        shape = self.pick((1,), (c, 1, 1), (1, c, 1, 1), (height, w), (height, 1), (w,))
        self.become(self.add(self.pick("Mul", "Add"), [self.value, self.floats(*shape)])[0], self.shape)

    def normalise(self) -> None:
        c = self.shape[1]
        variance = self.weight(self.rng.uniform(0.5, 2, c).astype(np.float32))
        inputs = [self.value, self.floats(c), self.floats(c), self.floats(c), variance]
        self.become(self.add("BatchNormalization", inputs)[0], self.shape)

    def pad(self) -> None:
        n, c, height, width = self.shape
        top, left, bottom, right = (int(v) for v in self.rng.integers(0, 3, 4))
        pads = self.weight(np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
        self.become(
            self.add("Pad", [self.value, pads])[0], (n, c, height + top + bottom, width + left + right)
        )
        self.pick(self.conv, self.activation)()  # onnxruntime fuses it with a pool, and then refuses the pool

    def fork(self) -> None:
        """Split on channels, different windows on each half, concatenated again."""
        n, c, height, width = self.shape
        if c < 2:
            return self.conv()
        sizes = self.weight(np.array([c // 2, c - c // 2], np.int64))
        left, right = self.add("Split", [self.value, sizes], 2, axis=1)
        deep = self._same(left, c // 2, self.pick(1, 3, 5))
        deep = self._same(deep, c // 2, 3)
        self.become(self.add("Concat", [deep, right], axis=1)[0], (n, c, height, width))
        return None

    def residual(self) -> None:
        """An addition of what has seen unequal numbers of neighbours."""
        c = self.shape[1]
        deep = self._same(self._same(self.value, c, 3), c, self.pick(3, 5))
        side = self.value if self.pick(True, False) else self._same(self.value, c, self.pick(1, 3))
        self.become(self.add(self.pick("Add", "Max", "Sub"), [deep, side])[0], self.shape)

    def _same(self, value: str, channels: int, size: int) -> str:
        weight = self.floats(channels, channels, size, size)
        return self.add("Conv", [value, weight], kernel_shape=[size, size], pads=[size // 2] * 4)[0]

    def resize(self) -> None:
        n, c, height, width = self.shape
        if height > 40:
            return self.pool()
        factors = self.pick((2, 2), (3, 1), (2, 1), (1, 2))
        mode = self.pick("nearest", "linear", "cubic")
        way = self.pick("half_pixel", "asymmetric", "pytorch_half_pixel")
        size = (height * factors[0], width * factors[1])
        inputs = [self.value, ""]
        if self.pick(True, False):
            inputs.append(self.weight(np.array([1, 1, *factors], np.float32)))
        else:
            inputs += ["", self.weight(np.array([n, c, *size], np.int64))]
        attributes = {"coordinate_transformation_mode": way, "mode": mode}
        if mode == "nearest":
            attributes["nearest_mode"] = self.pick("round_prefer_floor", "floor", "ceil", "round_prefer_ceil")
        self.become(self.add("Resize", inputs, **attributes)[0], (n, c, *size))
        return None

    def deeper(self) -> None:
        """DepthToSpace, where channels allow."""
        n, c, height, width = self.shape
        if height > 40:
            return self.pool()
        self.value = self._widened(4)
        value = self.add("DepthToSpace", [self.value], blocksize=2, mode=self.pick("DCR", "CRD"))[0]
        self.become(value, (n, 1, height * 2, width * 2))
        del c
        self.value = self._widened(4)
        self.shape = (n, 4, height * 2, width * 2)
        return None

    def _widened(self, channels: int) -> str:
        value = self.add("Conv", [self.value, self.floats(channels, self.shape[1], 1, 1)])[0]
        self.shape = (self.shape[0], channels, *self.shape[2:])
        return value

    def shuffle(self) -> None:
        """Channels in groups, and back: Reshape, Transpose, Reshape."""
        n, c, height, width = self.shape
        if c % 2:
            return self.activation()
        apart = self.weight(np.array([n, 2, c // 2, height, width], np.int64))
        back = self.weight(np.array([self.pick(n, 0), c, height, self.pick(width, -1)], np.int64))
        value = self.add("Reshape", [self.value, apart])[0]
        value = self.add("Transpose", [value], perm=[0, 2, 1, 3, 4])[0]
        self.become(self.add("Reshape", [value, back])[0], self.shape)
        return None

    def soften(self) -> None:
        """Over channels."""
        self.become(self.add("Softmax", [self.value], axis=1)[0], self.shape)

    def turn(self) -> None:
        """Channels last, something there, and back."""
        c = self.shape[1]
        value = self.add("Transpose", [self.value], perm=[0, 2, 3, 1])[0]
        value = self.add("Mul", [value, self.floats(c)])[0]
        value = self.add("MatMul", [value, self.floats(c, c)])[0]
        self.become(self.add("Transpose", [value], perm=[0, 3, 1, 2])[0], self.shape)

    def layers(self) -> list[Callable[[], Any]]:
        """What may be drawn."""
        often = [self.conv, self.conv, self.pool, self.residual]
        rest = [self.activation, self.scale, self.normalise, self.pad, self.fork, self.resize]
        return [*often, *rest, self.deeper, self.shuffle, self.soften, self.turn]

    def grow(self, count: int, least: int = 6) -> Stack:
        """Adds layers while the image has enough rows."""
        for _ in range(count):
            if min(self.shape[2:]) < least:
                break
            self.pick(*self.layers())()
        return self

    def model(self, *, symbolic_batch: bool = False) -> onnx.ModelProto:
        """The network; the batch of its input a symbol if that is asked for."""
        batch: int | str = "N" if symbolic_batch else self.input_shape[0]
        x = h.make_tensor_value_info("x", T.FLOAT, [batch, *self.input_shape[1:]])
        y = h.make_tensor_value_info(self.value, T.FLOAT, None)
        graph = h.make_graph(self.nodes, "stack", [x], [y], self.weights)
        return h.make_model(graph, opset_imports=[h.make_opsetid("", OPSET)], ir_version=9)


def image(model: onnx.ModelProto, rng: np.random.Generator, batch: int = 2) -> np.ndarray:
    """An input for a stack."""
    dims = [dim.dim_value or batch for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return rng.standard_normal(dims).astype(np.float32)
