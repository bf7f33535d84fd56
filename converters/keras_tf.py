"""Keras on TensorFlow, and SavedModels, through tf2onnx.

tf2onnx folds batch normalisation and the transposes between layouts, and gives one operator
for an LSTM. It needs more memory than the torch route, and some help:

1. It copies the whole graph, weights and all, before each of some thirty optimizer passes
   to be able to go back. A switch turns that off.
2. After each pass it writes every weight into its protobuf node anew, and protobuf's arenas
   give nothing back while the node lives: each pass adds the weights once more. Weights do
   not change in these passes, so their nodes are left alone.
3. What is left lies in reference cycles and in the allocator: both are emptied.
4. Models over `LARGE` take its path for large models, which keeps weights out of TensorFlow's
   graph passes; batch normalisations then stay a Mul and an Add that onnxruntime folds. On that
   path the frozen graph, whose message holds the weights as long as it lives, is let go, and so
   are the weights by their names once nodes have them.
5. It takes a constant, and the Identity that reads a weight, for something to compute, and writes
   each into a second node. A weight gets the name of what reads it instead, and constants stay.

Together ResNet50 takes 2.7 GB instead of 6.3, VGG16 4.1 instead of over 20.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx

from dnnsplit_onnx.converters.adapter import BATCH, Adapter, Array, Feeds, InputSpec
from dnnsplit_onnx.converters.extras import versions
from dnnsplit_onnx.converters.keras_model import (
    as_functional,
    input_specs,
    layer_values,
    output_names,
    precision,
    run_graph,
)
from dnnsplit_onnx.converters.keras_time import steps_as_batch
from dnnsplit_onnx.converters.reasons import reason
from dnnsplit_onnx.converters.tf_layers import known_layers, scope_layers
from dnnsplit_onnx.converters.tf_operators import handlers, written_out
from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.bodies import subgraphs

OPSET = 18  # the newest that tf2onnx writes
LARGE = 150_000_000  # bytes of weights


class _TensorFlow(Adapter):
    """What a Keras model and a SavedModel have in common: a concrete function."""

    route = "keras-tf"
    outputs: list[str]

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._layers: dict[str, str] = {}

    def versions(self) -> dict[str, str]:
        """Versions of the libraries of this route."""
        return versions("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime")

    def layer_of(self, node: onnx.NodeProto) -> str | None:
        """The layer a node came from, read from the scopes in its own and its weights' names."""
        return self._layers.get(node.name)

    def _convert(
        self, trackable: Any, function: Any, rename: Mapping[str, str], path: Path
    ) -> onnx.ModelProto:
        """Runs tf2onnx on a concrete function and writes the result."""
        import tensorflow as tf
        from tf2onnx import optimizer, tf_loader, tfonnx
        from tf2onnx.graph import ExternalTensorStorage

        # What the function captures is its weights and constants, not its inputs; tf2onnx's
        # own `from_function` makes model inputs of the constants among them.
        captured = {inner.name for _, inner in function.graph.captures}
        inputs = [tensor.name for tensor in function.inputs if tensor.name not in captured]
        outputs = [tensor.name for tensor in function.outputs if tensor.dtype != tf.resource]
        large = 4 * self.parameters > LARGE
        try:
            with _frugal(), tf.device("/cpu:0"):
                frozen, tables = tf_loader.from_trackable(trackable, function, inputs, outputs, large)
                weights, storage = None, None
                if large:
                    frozen, weights = _apart(frozen, outputs)
                    storage = ExternalTensorStorage()
                with tf.Graph().as_default() as tf_graph:
                    tf.import_graph_def(frozen, name="")
                    del frozen
                    graph = tfonnx.process_tf_graph(
                        tf_graph,
                        continue_on_error=False,
                        opset=min(self.opset or OPSET, OPSET),
                        const_node_values=weights,
                        input_names=inputs,
                        output_names=outputs,
                        custom_op_handlers=handlers(),
                        tensors_to_rename=dict(rename),
                        initialized_tables=tables,
                    )
                    del weights
                    graph = optimizer.optimize_graph(graph, catch_errors=False)
                    proto = graph.make_model(f"converted from {path.stem}", external_tensor_storage=storage)
        except Exception as error:  # whatever tf2onnx meets in the model
            raise InputError(
                f"tf2onnx cannot convert the model: {reason(error)}",
                hint="--debug shows where; a Keras model may take --route keras-torch",
            ) from error
        _refuse_unknown(proto)
        _order_outputs(proto, self.outputs)
        _save(proto, storage.name_to_tensor_data if storage else {}, path)
        result: onnx.ModelProto = proto
        return result


class KerasTf(_TensorFlow):
    """A Keras model on the TensorFlow backend.

    Args:
        model: A built `keras.Model`.

    Raises:
        InputError: The model has no inputs yet, or no graph of layers.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.layers = len(model.layers)
        self.model = as_functional(model)
        self.inputs = input_specs(self.model)
        self.outputs = output_names(self.model)
        self.parameters = int(self.model.count_params())
        self.precision = precision(self.model)

    def run(self, feeds: Feeds) -> list[Array]:
        """What Keras computes."""
        return [value.numpy() for value in run_graph(self.model, self._tensors(feeds))]

    def export(self, path: Path, feeds: Feeds) -> None:
        """Writes the model as ONNX. See `Adapter.export`."""
        import tensorflow as tf

        del feeds  # TensorFlow traces with shapes alone
        specs = [
            tf.TensorSpec([d if isinstance(d, int) else None for d in spec.shape], spec.dtype, spec.name)
            for spec in self.inputs
        ]
        keys = [f"output_{at:03}" for at in range(len(self.outputs))]  # TensorFlow sorts them
        traced = tf.function(lambda *xs: dict(zip(keys, self._call(xs), strict=True)), input_signature=specs)
        with written_out(), steps_as_batch():
            function = traced.get_concrete_function()
        rename = dict(zip([tensor.name for tensor in function.outputs], self.outputs, strict=True))
        rename.update({f"{spec.name}:0": spec.name for spec in self.inputs})
        proto = self._convert(self.model, function, rename, path)
        self._layers = known_layers(proto.graph, self.model)

    def layer_outputs(self, feeds: Feeds) -> Iterator[tuple[str, Array]]:
        """Each layer's output, run by Keras."""
        for name, value in layer_values(self.model, self._tensors(feeds)):
            yield name, value.numpy()

    def _tensors(self, feeds: Feeds) -> list[Any]:
        import tensorflow as tf

        return [tf.constant(feeds[spec.name]) for spec in self.inputs]

    def _call(self, values: Sequence[Any]) -> list[Any]:
        import keras

        packed = keras.tree.pack_sequence_as(self.model._inputs_struct, list(values))
        return list(keras.tree.flatten(self.model(packed, training=False)))


class SavedModel(_TensorFlow):
    """A SavedModel's serving signature.

    Args:
        path: The folder.

    Raises:
        InputError: It cannot be loaded, or has no signature.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.layers = 0
        self.loaded = _load(path)
        signatures = self.loaded.signatures
        if not signatures:
            raise InputError(
                f"the SavedModel `{path}` has no signature", hint="save it with model.export(folder)"
            )
        name = "serving_default" if "serving_default" in signatures else next(iter(signatures))
        self.function = signatures[name]
        self.inputs = tuple(
            _spec(key, spec) for key, spec in self.function.structured_input_signature[1].items()
        )
        self.outputs = sorted(self.function.structured_outputs)
        self.parameters = sum(int(np.prod(variable.shape)) for variable in self.function.variables)
        self.notes.append(f"signature `{name}`; layer names are those of its scopes")

    def run(self, feeds: Feeds) -> list[Array]:
        """What TensorFlow computes."""
        import tensorflow as tf

        result = self.function(**{spec.name: tf.constant(feeds[spec.name]) for spec in self.inputs})
        return [result[name].numpy() for name in self.outputs]

    def export(self, path: Path, feeds: Feeds) -> None:
        """Writes the signature as ONNX. See `Adapter.export`."""
        del feeds  # it has been traced
        names = [tensor.name for tensor in self.function.outputs]
        rename = dict(zip(names, self.outputs, strict=True))
        captured = {inner.name for _, inner in self.function.graph.captures}
        inputs = [tensor.name for tensor in self.function.inputs if tensor.name not in captured]
        # Graph inputs are named SIGNATURE_NAME:0, in the order of the sorted names.
        rename.update(zip(inputs, sorted(spec.name for spec in self.inputs), strict=True))
        proto = self._convert(self.loaded, self.function, rename, path)
        self._layers = scope_layers(proto.graph)


def _load(path: Path) -> Any:
    import tensorflow as tf

    try:
        return tf.saved_model.load(str(path))
    except Exception as error:  # anything can be wrong with a folder
        raise InputError(f"TensorFlow cannot load `{path}`: {reason(error)}") from error


def _spec(name: str, spec: Any) -> InputSpec:
    shape: list[int | str] = []
    for at, dim in enumerate(spec.shape):
        label = BATCH if at == 0 else f"{name}_{at}"
        shape.append(label if dim is None else int(dim))
    return InputSpec(name, np.dtype(spec.dtype.as_numpy_dtype), tuple(shape))


def _refuse_unknown(proto: onnx.ModelProto) -> None:
    """Fails where tf2onnx left an operator of TensorFlow, as it does with those that it does not know.

    Raises:
        InputError: It did; the message names them.
    """
    unknown: dict[str, str] = {}
    for node in _nodes(proto.graph):
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type):
            unknown.setdefault(node.op_type, node.name)
    if unknown:
        listed = ", ".join(f"`{operator}` (`{name}`)" for operator, name in sorted(unknown.items()))
        raise InputError(
            f"tf2onnx has no form in ONNX for TensorFlow's {listed}",
            hint="compute the same from other operators; a Keras model may take --route keras-torch",
        )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in subgraphs(node):
            yield from _nodes(body)


def _order_outputs(proto: onnx.ModelProto, names: Sequence[str]) -> None:
    found = {value.name: value for value in proto.graph.output}
    ordered = [onnx.ValueInfoProto.FromString(found[name].SerializeToString()) for name in names]
    del proto.graph.output[:]
    proto.graph.output.extend(ordered)


def _save(proto: onnx.ModelProto, weights: Mapping[str, bytes], path: Path) -> None:
    """Writes the model, and the weights that tf2onnx kept apart into one file beside it."""
    data = path.with_name(path.name + ".data")
    with data.open("wb") as out:
        for tensor in proto.graph.initializer:
            if not tensor.external_data:
                continue
            raw = weights[tensor.external_data[0].value]
            del tensor.external_data[:]
            for key, value in (("location", data.name), ("offset", out.tell()), ("length", len(raw))):
                tensor.external_data.add(key=key, value=str(value))
            out.write(raw)
    path.write_bytes(proto.SerializeToString())


def _apart(frozen: Any, outputs: Sequence[str]) -> tuple[Any, dict[str, bytes]]:
    """A frozen graph without its weights, and these by the names of their nodes.

    A weight that a single Identity reads takes its place and its name, which says the layer.
    """
    from tf2onnx.tf_utils import compress_graph_def

    weights: dict[str, bytes] = compress_graph_def(frozen)
    readers: dict[str, list[Any]] = {}
    for node in frozen.node:
        for read in node.input:
            readers.setdefault(read.removeprefix("^").split(":")[0], []).append(node)
    kept, gone = {output.split(":")[0] for output in outputs}, set()
    for node in frozen.node:
        reader, *others = readers.get(node.name, [None])
        if node.name not in weights or others or reader is None or reader.op != "Identity":
            continue
        name = reader.name
        if len(reader.input) == 1 and name not in kept:
            gone.add(node.name)
            weights[name] = weights.pop(node.name)
            reader.CopyFrom(node)
            reader.name = name
    # A message keeps what was once in it, so what is left goes into another.
    slim = type(frozen)(library=frozen.library, versions=frozen.versions)
    slim.node.extend(node for node in frozen.node if node.name not in gone)
    return slim, weights


@contextmanager
def _frugal() -> Iterator[None]:
    """tf2onnx with the help that the module's docstring lists."""
    from tf2onnx import optimizer, tfonnx
    from tf2onnx.graph import Node

    update, computed = Node.update_proto, tfonnx.compute_const_folding_using_tf

    def computed_alone(graph: Any, *args: Any) -> tuple[Any, Any]:
        values, types = computed(graph, *args)
        constants = {op.outputs[0].name for op in graph.get_operations() if op.type in ("Const", "ConstV2")}
        return {name: value for name, value in values.items() if name not in constants}, types

    def update_unless_weight(node: Any, *args: Any, **kwargs: Any) -> None:
        if not node.is_const():
            update(node, *args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Node, "update_proto", update_unless_weight))
        stack.enter_context(mock.patch.object(tfonnx, "compute_const_folding_using_tf", computed_alone))
        for factory in set(optimizer._get_optimizers().values()):
            stack.enter_context(mock.patch.object(factory, "optimize", _tidied(factory.optimize)))
        if not hasattr(np, "product"):  # gone from numpy 2, and tf2onnx 1.17 calls it
            stack.enter_context(mock.patch.object(np, "product", np.prod, create=True))
        yield


def _tidied(optimize: Any) -> Any:
    """An optimizer pass that gives back the memory it took."""

    def run(*args: Any, **kwargs: Any) -> Any:
        result = optimize(*args, **kwargs)
        gc.collect()
        with suppress(AttributeError, OSError):  # glibc alone has it
            ctypes.CDLL(None).malloc_trim(0)
        return result

    return run
