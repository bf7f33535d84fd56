"""PyTorch models and exported programs, through torch's current exporter.

Inputs may be nested (a mapping of caches inside the keyword arguments of a decoder); in
ONNX they are flat, named by their path: `past_key_values.0.key`. Outputs likewise. So a
module that returns `{"logits": ..., "present": {"0": {"key": ...}}}` gives the names that
runtimes for language models look for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from dnnsplit_onnx.converters import torch_export
from dnnsplit_onnx.converters.adapter import BATCH, Adapter, Array, Feeds, InputSpec
from dnnsplit_onnx.converters.extras import versions
from dnnsplit_onnx.converters.reasons import reason
from dnnsplit_onnx.converters.samples import sample_inputs
from dnnsplit_onnx.errors import InputError

# The name under which the exporter sees the user's module; it is taken off again.
_INNER = "inner"

Dynamic = Mapping[str, Mapping[int, str]]


class PyTorch(Adapter):
    """An `nn.Module` with example inputs.

    Args:
        module: The module; it is put in evaluation mode.
        example: Positional inputs as a sequence (or one tensor), or keyword inputs as a
            mapping. Values are tensors, or mappings and sequences of tensors.
        dynamic: Names of open dimensions, by input name and axis. None: the first
            dimension of every input whose first dimension is that of the first input.
        sizes: Numbers for open dimensions by name; `batch` fixes the batch size.

    Raises:
        InputError: The example holds something else than tensors.
    """

    route = "pytorch"

    def __init__(self, module: Any, example: Any, dynamic: Dynamic | None, sizes: Mapping[str, int]) -> None:
        self.module = module.eval()
        self.keywords = _as_keywords(module, example)
        flat = dict(_flatten(self.keywords, ""))
        self.inputs = _specs(flat, _default_dynamic(flat) if dynamic is None else dynamic, sizes)
        self.layers = sum(1 for inner in module.modules() if not list(inner.children()))
        self.parameters = sum(parameter.numel() for parameter in module.parameters())
        self.notes: list[str] = []

    def versions(self) -> dict[str, str]:
        """Versions of the libraries of this route."""
        return versions("torch", "transformers", "onnxscript", "onnx", "onnxruntime")

    def run(self, feeds: Feeds) -> list[Array]:
        """What PyTorch computes."""
        return [value.detach().numpy() for _, value in self._outputs(feeds)]

    def export(self, path: Path) -> None:
        """Writes the model as ONNX. See `Adapter.export`."""
        outputs = [name for name, _ in self._outputs(sample_inputs(self.inputs))]
        torch_export.export(_flat_module(self.module, self._call).eval(), self.inputs, outputs, path)

    def layer_of(self, node: onnx.NodeProto) -> str | None:
        """The path of the module that a node came from."""
        path = torch_export.module_path(node)
        return path.removeprefix(_INNER).lstrip(".") or None if path else None

    def layer_outputs(self, feeds: Feeds) -> Iterator[tuple[str, Array]]:
        """Each module's output."""
        import torch

        seen: list[tuple[str, Any]] = []
        hooks = [
            module.register_forward_hook(lambda _m, _i, result, name=name: seen.append((name, result)))
            for name, module in self.module.named_modules()
            if name
        ]
        try:
            self._outputs(feeds)
        finally:
            for hook in hooks:
                hook.remove()
        names = [name for name, _ in seen]
        for name, value in seen:
            if names.count(name) == 1 and isinstance(value, torch.Tensor):
                yield name, value.detach().numpy()

    def _outputs(self, feeds: Feeds) -> list[tuple[str, Any]]:
        import torch

        with torch.no_grad():
            return self._call([torch.from_numpy(feeds[spec.name]) for spec in self.inputs])

    def _call(self, tensors: Sequence[Any]) -> list[tuple[str, Any]]:
        """Runs the module on flat inputs and names its flat outputs."""
        import torch

        leaves = {spec.name: tensor for spec, tensor in zip(self.inputs, tensors, strict=True)}
        result = self.module(**_rebuild(self.keywords, "", leaves))
        if isinstance(result, torch.Tensor):
            return [("output", result)]
        if isinstance(result, Sequence):
            result = {f"output_{at}": value for at, value in enumerate(result)}
        return list(_flatten(result, ""))


def _flat_module(inner: Any, call: Callable[[Sequence[Any]], list[tuple[str, Any]]]) -> Any:
    """A module around another whose `forward` takes and gives tensors one by one.

    torch asks for the open dimensions in the nesting of the inputs, and has no form for
    what `**inputs` takes; flat inputs spare all of that.
    """
    import torch

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module(_INNER, inner)  # `call` runs it

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            return tuple(value for _, value in call(tensors))

    return Flat()


class ExportedProgram(Adapter):
    """A program that `torch.export` made, such as a `.pt2` file holds.

    Its open dimensions are those it was exported with; the first open one is `batch`.

    Raises:
        InputError: The program carries no example inputs.
    """

    route = "pytorch"

    def __init__(self, program: Any, sizes: Mapping[str, int]) -> None:
        if program.example_inputs is None:
            raise InputError("the exported program carries no example inputs", hint="export it again")
        self.program = program
        self.arguments, self.keywords = program.example_inputs
        flat = dict(_flatten({**dict(enumerate(self.arguments)), **self.keywords}, ""))
        placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
        names = program.graph_signature.user_inputs
        self.inputs = tuple(
            _spec(name, tensor, _open_dims(placeholders[name], sizes))
            for name, tensor in zip(names, flat.values(), strict=True)
        )
        self._flat_names = dict(zip(flat, names, strict=True))
        self.layers = 0  # a program is flat
        self.parameters = sum(value.numel() for value in program.state_dict.values())
        self.notes = []
        if sizes:
            self.notes.append("an exported program keeps its own open dimensions")

    def versions(self) -> dict[str, str]:
        """Versions of the libraries of this route."""
        return versions("torch", "onnxscript", "onnx", "onnxruntime")

    def run(self, feeds: Feeds) -> list[Array]:
        """What the program computes."""
        import torch

        tensors = {path: torch.from_numpy(np.array(feeds[name])) for path, name in self._flat_names.items()}
        named = {**dict(enumerate(self.arguments)), **self.keywords}
        nested = _rebuild(named, "", tensors)
        positional = [nested.pop(at) for at in range(len(self.arguments))]
        with torch.no_grad():
            result = self.program.module()(*positional, **nested)
        result = [result] if isinstance(result, torch.Tensor) else result
        values = dict(enumerate(result)) if isinstance(result, Sequence) else result
        return [value.detach().numpy() for _, value in _flatten(values, "")]

    def export(self, path: Path) -> None:
        """Writes the program as ONNX. See `Adapter.export`."""
        torch_export.run_exporter(path, self.program, input_names=[spec.name for spec in self.inputs])

    def layer_of(self, node: onnx.NodeProto) -> str | None:
        """The path of the module that a node came from."""
        return torch_export.module_path(node)


def load_program(path: Path) -> Any:
    """Loads a `.pt2` file.

    Raises:
        InputError: It is not an exported program.
    """
    import torch

    try:
        return torch.export.load(path)
    except Exception as error:  # anything can be wrong with a file
        raise InputError(
            f"torch cannot load `{path}` as an exported program: {reason(error)}",
            hint="torch.export.save makes one; a pickled module goes through package.module:function",
        ) from error


def example_of(module: Any, source: str) -> Any:
    """The example inputs that a module carries itself.

    Raises:
        InputError: It carries none.
    """
    for attribute in ("example_inputs", "dummy_inputs"):
        example = getattr(module, attribute, None)
        if example is not None:
            return example() if callable(example) else example
    raise InputError(
        f"`{source}` returned a module without example inputs",
        hint="return (module, example_inputs), the inputs a tuple of tensors or a dict of them by name",
    )


def _as_keywords(module: Any, example: Any) -> dict[str, Any]:
    """The example inputs by the names of `forward`'s parameters."""
    import torch

    if isinstance(example, Mapping):
        return dict(example)
    values = [example] if isinstance(example, torch.Tensor) else list(example)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(module.forward).parameters.values() if p.kind in kinds]
    if len(names) < len(values):
        raise InputError(
            f"{len(values)} example inputs for a forward() that takes {len(names)}",
            hint="pass them as a dict by name, or write a module whose forward() names its inputs",
        )
    return dict(zip(names, values, strict=False))


def _flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The tensors in nested mappings and sequences, by their dotted path."""
    import torch

    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for at, inner in enumerate(value):
            yield from _flatten(inner, f"{path}.{at}" if path else str(at))
    elif value is not None:
        raise InputError(
            f"`{path}` is a {type(value).__name__}, not a tensor",
            hint="inputs and outputs are tensors, or mappings and sequences of tensors",
        )


def _rebuild(value: Any, path: str, leaves: Mapping[str, Any]) -> Any:
    """The nesting of `value` with other leaves, by their dotted path."""
    import torch

    if isinstance(value, torch.Tensor):
        return leaves[path]
    if isinstance(value, Mapping):
        return {k: _rebuild(v, f"{path}.{k}" if path else str(k), leaves) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return type(value)(
            _rebuild(v, f"{path}.{at}" if path else str(at), leaves)  # type: ignore[call-arg]
            for at, v in enumerate(value)
        )
    return value


def _default_dynamic(flat: Mapping[str, Any]) -> Dynamic:
    """The first dimension is the batch wherever it has the size it has in the first input."""
    sizes = [tensor.shape[0] for tensor in flat.values() if tensor.ndim]
    return {name: {0: BATCH} for name, tensor in flat.items() if tensor.ndim and tensor.shape[0] == sizes[0]}


def _specs(flat: Mapping[str, Any], dynamic: Dynamic, sizes: Mapping[str, int]) -> tuple[InputSpec, ...]:
    specs = []
    for name, tensor in flat.items():
        names = dynamic.get(name, {})
        shape = [names.get(at, int(size)) for at, size in enumerate(tensor.shape)]
        specs.append(_spec(name, tensor, [sizes.get(d, d) if isinstance(d, str) else d for d in shape]))
    return tuple(specs)


def _spec(name: str, tensor: Any, shape: Sequence[int | str]) -> InputSpec:
    example: Array = tensor.detach().numpy()
    return InputSpec(name, example.dtype, tuple(shape), example=example)


def _open_dims(placeholder: Any, sizes: Mapping[str, int]) -> list[int | str]:
    """The dimensions of a program's input; a symbol first in the shape is the batch."""
    del sizes  # they are part of the program
    dims = placeholder.meta["val"].shape
    return [d if isinstance(d, int) else BATCH if at == 0 else str(d) for at, d in enumerate(dims)]
