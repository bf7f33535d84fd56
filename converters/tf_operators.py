"""What tf2onnx needs so that it knows every operator of a Keras model.

1. Operators of TensorFlow that it does not know, in terms of those that ONNX has.
2. Functions that TensorFlow is to compile (Keras does so with grouped convolutions) stay
   closed in a graph, as calls of functions; written out they are operators like others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

# A handler changes one node of tf2onnx's graph; the list holds arguments for it.
Handlers = dict[str, tuple[Callable[..., None], list[Any]]]


def handlers() -> Handlers:
    """By TensorFlow's name of an operator: what writes it in ONNX's."""
    return {"Erfc": (_erfc, [])}


def _erfc(graph: Any, node: Any, name: str, _: list[Any]) -> None:
    """erfc(x) = 1 - erf(x)."""
    from tf2onnx import utils

    kind, shape = graph.get_dtype(node.output[0]), graph.get_shape(node.output[0])
    one = graph.make_const(utils.make_name(name), np.array(1, utils.map_onnx_to_numpy_type(kind)))
    erf = graph.make_node("Erf", [node.input[0]], dtypes=[kind], shapes=[shape], name=f"{name}/Erf")
    graph.remove_node(name)
    terms = [one.output[0], erf.output[0]]
    graph.make_node("Sub", terms, name=name, outputs=node.output, dtypes=[kind], shapes=[shape])


@contextmanager
def written_out() -> Iterator[None]:
    """Traces functions inside functions operator by operator, those to be compiled too."""
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
