"""From a source to a loaded model, in this process.

Whoever calls this with a Keras source has set KERAS_BACKEND for its route: Keras reads it
once, when it is first imported.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

from dnnsplit_onnx.converters.adapter import Adapter
from dnnsplit_onnx.converters.conversion import Conversion, Options
from dnnsplit_onnx.converters.pipeline import given_inputs, run_conversion
from dnnsplit_onnx.converters.pytorch import PyTorch, example_of
from dnnsplit_onnx.converters.quiet import quiet
from dnnsplit_onnx.converters.reasons import reason
from dnnsplit_onnx.converters.routes import Route
from dnnsplit_onnx.converters.sources import ZOO, Source, parse_source
from dnnsplit_onnx.errors import DnnsplitError, InputError


def convert_here(source: Source, output: Path, route: Route, options: Options) -> Conversion:
    """Loads a source and converts it in this process. See `dispatch.convert`."""
    with quiet():
        adapter = load(source, route, options)
        taken = route if route.name == adapter.route else Route(adapter.route, "what the function returned")
        return run_conversion(adapter, source.text, output, taken, options)


def load(source: Source, route: Route, options: Options) -> Adapter:
    """The model of a source, ready to run and to export.

    Raises:
        InputError: It cannot be loaded.
    """
    if source.kind == "saved-model":
        from dnnsplit_onnx.converters.keras_tf import SavedModel

        return SavedModel(source.path)
    if source.kind == "keras-file":
        from dnnsplit_onnx.converters.keras_model import load_model

        return _keras(load_model(source.path, options.imports), route.name)
    if source.kind == "exported-program":
        from dnnsplit_onnx.converters.programs import ExportedProgram, load_program

        return ExportedProgram(load_program(source.path, options.trust))
    if source.kind == "torch-script":
        from dnnsplit_onnx.converters.scripts import load_script

        return load_script(source.path, given_inputs(options))
    if source.kind == "hugging-face":
        from dnnsplit_onnx.converters.hugging_face import load_folder

        return PyTorch(*load_folder(source.path, options.task, options.with_past))
    if source.kind == "callable":
        return _adapt(_call(source.text), source.text, route)
    if source.kind == "zoo":
        from dnnsplit_onnx.models.frameworks import build_framework_model

        return _adapt(build_framework_model(source.text.removeprefix(ZOO)), source.text, route)
    return _adapt(source.live, source.text, route)


def _adapt(built: Any, text: str, route: Route) -> Adapter:
    """An adapter for a live model, alone or with example inputs and open dimensions."""
    parts = tuple(built) if isinstance(built, tuple | list) else (built,)
    kind = parse_source(built).kind
    if kind == "keras-model":
        return _keras(parts[0], route.name)
    from dnnsplit_onnx.converters.programs import ExportedProgram

    if not hasattr(parts[0], "forward"):
        return ExportedProgram(parts[0])
    if hasattr(parts[0], "_concrete_type"):  # of torch.jit
        from dnnsplit_onnx.converters.scripts import TorchScript

        return TorchScript(*parts)
    example = parts[1] if len(parts) > 1 else example_of(parts[0], text)
    return PyTorch(parts[0], example, parts[2] if len(parts) > 2 else None)


def _keras(model: Any, route: str) -> Adapter:
    import keras

    # A callable's route is known only now: by the backend that its Keras runs on.
    if route == "keras-tf" or keras.backend.backend() == "tensorflow":
        from dnnsplit_onnx.converters.keras_tf import KerasTf

        return KerasTf(model)
    from dnnsplit_onnx.converters.keras_torch import KerasTorch

    return KerasTorch(model)


def _call(text: str) -> Any:
    """What `package.module:callable` returns."""
    module_name, _, attribute = text.partition(":")
    attribute, _, written = attribute.partition("(")
    try:
        arguments = _arguments(written)
        target: Any = import_module(module_name)
        for name in attribute.split("."):
            if not hasattr(target, name):
                raise InputError(f"`{module_name}` has no `{attribute}`")
            target = getattr(target, name)
        if _is_model(target):
            return target
        if not callable(target):
            raise InputError(f"`{text}` is a {type(target).__name__}, not a function that returns a model")
        return target(*arguments)
    except DnnsplitError:
        raise
    except Exception as error:  # it is the user's code
        raise InputError(f"`{text}` failed: {reason(error)}", hint=_hint(error, module_name)) from error


def _arguments(written: str) -> tuple[Any, ...]:
    """The numbers and texts between a function's parentheses.

    Raises:
        InputError: They are something else.
    """
    if not written.rstrip(")").strip():
        return ()
    try:
        arguments = ast.literal_eval(f"({written.removesuffix(')')},)")
    except (SyntaxError, ValueError):
        raise InputError(
            f"cannot read the arguments ({written}",
            hint="numbers and quoted texts, in order: 'module:function(3, \"small\")'",
        ) from None
    return tuple(arguments)


def _is_model(target: Any) -> bool:
    """Whether an object is what a function would return: a model, or one with its inputs."""
    if isinstance(target, type):
        return False
    try:
        parse_source(target)
    except InputError:
        return False
    return not isinstance(target, str | Path)


def _hint(error: Exception, module: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        if error.name.partition(".")[0] == "tensorflow":
            return "it uses TensorFlow: pass --route keras-tf"
        if module == error.name or module.startswith(error.name + "."):
            return "run from the folder that holds the module, or set PYTHONPATH"
    return "--debug shows where"
