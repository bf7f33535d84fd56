"""PyTorch modules, through torch's current exporter.

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
from dnnsplit_onnx.converters.nesting import flatten, rebuild
from dnnsplit_onnx.converters.parity import difference
from dnnsplit_onnx.converters.recurrent import recurrent_operators
from dnnsplit_onnx.converters.samples import sample_inputs
from dnnsplit_onnx.errors import InputError

# The name under which the exporter sees the user's module; it is taken off again.
_INNER = "inner"

Dynamic = Mapping[str, Mapping[int, str]]


# Samples to find the batch with.
_PROBE = 3
_ALIKE = 1e-2  # relative; sums may be taken in another order


class PyTorch(Adapter):
    """An `nn.Module` with example inputs.

    Args:
        module: The module; it is put in evaluation mode.
        example: Positional inputs as a sequence (or one tensor), or keyword inputs as a
            mapping. Values are tensors, or mappings and sequences of tensors.
        dynamic: Names of open dimensions, by input name and axis. None: the batch, if the
            module has one, of every input that has it on the same axis.

    Raises:
        InputError: The example holds something else than tensors.
    """

    route = "pytorch"

    def __init__(self, module: Any, example: Any, dynamic: Dynamic | None = None) -> None:
        module = getattr(module, "_orig_mod", module)  # of torch.compile
        self.notes: list[str] = []
        self.keywords = _as_keywords(module, example)
        if torch_export.precision((*module.parameters(), *module.buffers())) == "bfloat16":
            module = module.float()
            self.notes.append("bfloat16 became float32: onnxruntime computes little in bfloat16 on a CPU")
        self.keywords = _without_bfloat16(self.keywords)
        self.module = module.eval()
        flat = dict(flatten(self.keywords, ""))
        self.layers = sum(1 for inner in module.modules() if not list(inner.children()))
        self.parameters = sum(parameter.numel() for parameter in module.parameters())
        self.precision = torch_export.precision((*module.parameters(), *flat.values()))
        self.inputs = _specs(flat, {})
        if dynamic is not None:
            self.inputs = _specs(flat, _open_as_asked(flat, dynamic))
        else:
            self._find_batch(flat)

    def _find_batch(self, flat: Mapping[str, Any]) -> None:
        """Opens the batch: the first of two axes along which samples do not know of each other."""
        fixed = self.inputs
        for axis in (0, 1):
            sizes = [tensor.shape[axis] for tensor in flat.values() if tensor.ndim > axis]
            dynamic = {
                name: {axis: BATCH}
                for name, tensor in flat.items()
                if tensor.ndim > axis and tensor.shape[axis] == sizes[0]
            }
            self.inputs = _specs(flat, dynamic)
            if dynamic and self._is_batch(axis):
                return
        self.inputs = fixed
        first = next(iter(flat), "")
        self.notes.append(
            "no batch was found, an axis along which samples are independent: all sizes are the example's"
            f" (name those that should stay open: --open {first}.0)"
        )

    def _is_batch(self, axis: int) -> bool:
        """Whether reversing the samples reverses what comes out, and changes nothing else."""
        feeds = sample_inputs(self.inputs, {BATCH: _PROBE})
        turned = {
            spec.name: np.ascontiguousarray(np.flip(feeds[spec.name], axis))
            if BATCH in spec.shape
            else feeds[spec.name]
            for spec in self.inputs
        }
        try:
            straight, reverse = self.run(feeds), self.run(turned)
        except Exception:  # the module does not take another size there
            return False
        return all(_turned(a, b) for a, b in zip(straight, reverse, strict=True)) and any(
            _PROBE in value.shape for value in straight
        )

    def versions(self) -> dict[str, str]:
        """Versions of the libraries of this route."""
        return versions("torch", "transformers", "onnxscript", "onnx", "onnxruntime")

    def run(self, feeds: Feeds) -> list[Array]:
        """What PyTorch computes."""
        return [value.detach().numpy() for _, value in self._outputs(feeds)]

    def export(self, path: Path, feeds: Feeds) -> None:
        """Writes the model as ONNX. See `Adapter.export`."""
        outputs = [name for name, _ in self._outputs(feeds)]
        module = _flat_module(self.module, self._call).eval()
        with recurrent_operators(self.module):
            torch_export.export(module, self.inputs, outputs, path, feeds, self.opset)

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
        result = self.module(**rebuild(self.keywords, "", leaves))
        if isinstance(result, torch.Tensor):
            return [("output", result)]
        if isinstance(result, Sequence):
            result = {f"output_{at}": value for at, value in enumerate(result)}
        return list(flatten(result, ""))


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


def _without_bfloat16(value: Any) -> Any:
    """Nested inputs with bfloat16 as float32, which numpy knows."""
    import torch

    leaves = {
        path: leaf.float() if leaf.dtype == torch.bfloat16 else leaf for path, leaf in flatten(value, "")
    }
    return rebuild(value, "", leaves)


def _turned(straight: Array, reverse: Array) -> bool:
    """Whether one output is the other with its samples reversed, on whichever axis they are."""
    axes = [at for at, size in enumerate(straight.shape) if size == _PROBE]
    if not axes:
        return straight.shape == reverse.shape and difference(straight, reverse)[1] < _ALIKE
    return any(difference(np.flip(straight, at), reverse)[1] < _ALIKE for at in axes)


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


def _open_as_asked(flat: Mapping[str, Any], dynamic: Dynamic) -> Dynamic:
    """The open dimensions that an author named.

    Raises:
        InputError: One is of no input, or of an axis that the input does not have.
    """
    for name, axes in dynamic.items():
        if name not in flat:
            listed = ", ".join(f"`{known}`" for known in flat)
            raise InputError(
                f"open dimensions of `{name}`, which is no input", hint=f"the inputs are {listed}"
            )
        for axis in axes:
            if not 0 <= axis < flat[name].ndim:
                raise InputError(
                    f"an open dimension on axis {axis} of `{name}`",
                    hint=f"its example has the shape {list(flat[name].shape)}; axes count from 0",
                )
    return dynamic


def _specs(flat: Mapping[str, Any], dynamic: Dynamic) -> tuple[InputSpec, ...]:
    specs = []
    for name, tensor in flat.items():
        names = dynamic.get(name, {})
        example: Array = tensor.detach().numpy()
        shape = tuple(names.get(at, int(size)) for at, size in enumerate(tensor.shape))
        specs.append(InputSpec(name, example.dtype, shape, example=example))
    return tuple(specs)
