"""What both Keras routes ask of a Keras model: its graph, inputs and outputs."""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dnnsplit_onnx.converters.adapter import BATCH, InputSpec
from dnnsplit_onnx.converters.reasons import reason
from dnnsplit_onnx.errors import InputError

# What Keras 2 made of operators of TensorFlow between layers; Keras 3 has none of these.
_KERAS_2_LAYERS = (
    "TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer", "ClassMethod", "InstanceMethod", "InstanceProperty",
)  # fmt: skip


def load_model(path: Path, modules: Sequence[str] = ()) -> Any:
    """Loads a `.keras` or `.h5` file with the backend that is active.

    Args:
        path: The file.
        modules: Imported first, for the layers that they register with Keras.

    Raises:
        InputError: The file cannot be read, or needs code that is not here.
    """
    import keras

    try:
        for module in modules:
            import_module(module)
    except Exception as error:  # it is the user's code
        raise InputError(f"cannot import `{module}`: {reason(error)}", hint="set PYTHONPATH") from error
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # anything can be wrong with a file
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    """Why Keras does not load a file: a layer of the author's, an older Keras, or the file."""
    match = re.search(r"Could not locate class '(\w+)'|Unknown layer: '?(\w+)", str(error))
    layer = match and (match[1] or match[2])
    old = stored_version(path).startswith("2.")
    if layer and not (old and layer in _KERAS_2_LAYERS):
        return InputError(
            f"Keras does not know the layer `{layer}` of `{path}`",
            hint="pass --import MODULE, a module that registers it with "
            "@keras.saving.register_keras_serializable(); or package.module:function that builds the model",
        )
    if old:
        return InputError(
            f"`{path}` is of Keras {stored_version(path)}, and Keras 3 cannot load it: {reason(error)}",
            hint=f'pip install tf_keras; python -c "import tf_keras; '
            f"tf_keras.models.load_model('{path}').export('saved')\"; dnnsplit-onnx convert saved",
        )
    return InputError(
        f"Keras cannot load `{path}`: {reason(error)}",
        hint="a function that builds the model can be passed instead: package.module:function",
    )


def stored_version(path: Path) -> str:
    """The version of Keras that saved a file, "" if it does not say."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
        import h5py  # comes with keras

        with h5py.File(path, "r") as file:
            return str(file.attrs.get("keras_version", ""))
    except Exception:  # it says nothing
        return ""


def as_functional(model: Any) -> Any:
    """The model as a graph of operations.

    Raises:
        InputError: It has none: it was never built, or it is a subclass that computes in
            Python code of its own.
    """
    import keras

    if isinstance(model, keras.Sequential):
        if not model.built or not model.inputs:
            raise InputError(
                f"the Keras model `{model.name}` has no input shape yet",
                hint="add a keras.Input as its first layer, or call the model once before saving it",
            )
        # Sequential is a wrapper that tf2onnx and the graph walk do not see through.
        return keras.Model(model.inputs, model.outputs, name=model.name)
    if is_graph(model):
        return model
    raise InputError(
        f"the Keras model `{model.name}` is a subclass of keras.Model without a graph of layers",
        hint="wrap it: keras.Model(x, model(x)) with x = keras.Input(shape)",
    )


def is_graph(operation: Any) -> bool:
    """Whether an operation is a functional model: a graph of operations itself.

    Keras keeps the class private; what is asked of it here is what the routes call.
    """
    return all(
        hasattr(operation, name) for name in ("_run_through_graph", "_standardize_inputs", "operations")
    )


def run_graph(model: Any, values: Sequence[Any], seen: Callable[[str, Any], None] | None = None) -> list[Any]:
    """Runs a functional model layer by layer, letting go of each value after its last use.

    Keras's own walk keeps every value to the end: 11 GB for two images in EfficientNetB7.

    Args:
        model: The functional model.
        values: Its inputs, flat, as tensors of the backend.
        seen: Called with each operation's name and what it gave.

    Returns:
        The model's outputs, flat.
    """
    import keras

    given = keras.tree.pack_sequence_as(model._inputs_struct, list(values))
    tensors = dict(zip(map(id, model.inputs), model._standardize_inputs(given), strict=True))
    depths = sorted(model._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in model._nodes_by_depth[depth] if not node.is_input]
    uses = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    uses.update(id(tensor) for tensor in model.outputs)
    for node in nodes:
        args, kwargs = node.arguments.fill_in(tensors)
        result = in_inference(node.operation)(*args, **kwargs)
        if seen is not None:
            seen(node.operation.name, result)
        tensors.update(zip(map(id, node.outputs), keras.tree.flatten(result), strict=True))
        for tensor in node.input_tensors:
            uses[id(tensor)] -= 1
            if not uses[id(tensor)]:
                del tensors[id(tensor)]
    return [tensors[id(tensor)] for tensor in model.outputs]


def in_inference(operation: Any) -> Callable[..., Any]:
    """An operation as `predict` runs it: not training, whatever its own default or its call says."""
    takes = "training" in getattr(operation, "_call_context_args", ()) or getattr(
        operation, "_call_has_training_arg", False
    )

    def call(*args: Any, **kwargs: Any) -> Any:
        return operation(*args, **({**kwargs, "training": False} if takes else kwargs))

    return call


def layer_values(model: Any, values: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """What each layer of a functional model gives, for layers that run once and give one tensor."""
    found: list[tuple[str, Any]] = []
    run_graph(model, values, lambda name, value: found.append((name, value)))
    runs = Counter(name for name, _ in found)
    yield from ((name, value) for name, value in found if runs[name] == 1 and hasattr(value, "shape"))


def input_specs(model: Any) -> tuple[InputSpec, ...]:
    """The inputs of a functional model, open dimensions named.

    The first dimension is `batch`; another open one is called `INPUT_AXIS`.
    """
    below = vocabulary(model)
    specs = []
    names = unique(tensor.name for tensor in model.inputs)
    for name, tensor in zip(names, model.inputs, strict=True):
        shape: list[int | str] = []
        for at, dim in enumerate(tensor.shape):
            label = BATCH if at == 0 else f"{name}_{at}"
            shape.append(label if dim is None else int(dim))
        specs.append(InputSpec(name, np.dtype(tensor.dtype), tuple(shape), below, scale=input_scale(model)))
    return tuple(specs)


def input_scale(model: Any) -> float:
    """The spread of values that a model expects: more than 1 if it scales pixels itself.

    On inputs near zero such a model shows nothing but its biases.
    """
    for layer in model.layers[1:3]:
        if type(layer).__name__ == "Rescaling" and isinstance(layer.scale, float) and layer.scale:
            return max(1.0, 0.5 / abs(layer.scale))  # half the range of pixels
        if type(layer).__name__ == "Normalization" and getattr(layer, "input_variance", None) is not None:
            return max(1.0, float(np.sqrt(np.max(layer.input_variance))))
    return 1.0


def precision(model: Any) -> str:
    """The coarsest type that a layer computes in.

    Raises:
        InputError: It is bfloat16, which neither route can hand over.
    """
    kinds = {str(getattr(layer, "compute_dtype", "")) for layer in model._flatten_layers()}
    if "bfloat16" in kinds:
        raise InputError(
            f"the Keras model `{model.name}` computes in bfloat16",
            hint="build it under keras.config.set_dtype_policy('float32') and load its weights into that",
        )
    return "float16" if "float16" in kinds else "float32"


def output_names(model: Any) -> list[str]:
    """Names for the outputs: the keys of the author's dict, or the layers that make them."""
    import keras

    outputs = getattr(model, "_outputs_struct", None)
    if isinstance(outputs, Mapping) and hasattr(keras.tree, "flatten_with_path"):
        paths = [path for path, _ in keras.tree.flatten_with_path(outputs)]
        return unique(".".join(map(str, path)) for path in paths)
    return unique(tensor._keras_history.operation.name for tensor in model.outputs)


def unique(names: Iterable[str]) -> list[str]:
    """The names with a number behind each that came before, and no `:` or `/` in them."""
    seen: set[str] = set()
    result = []
    for name in names:
        plain = name.replace(":", "_").replace("/", "_")
        label, number = plain, 1
        while label in seen:
            label, number = f"{plain}_{number}", number + 1
        seen.add(label)
        result.append(label)
    return result


def vocabulary(model: Any) -> int:
    """The smallest number of rows of any embedding: integers below it fit all of them."""
    sizes = [int(layer.input_dim) for layer in model._flatten_layers() if hasattr(layer, "input_dim")]
    return min(sizes, default=2)
