"""TorchScript modules, through torch's older exporter: the current one takes none."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx

from dnnsplit_onnx.converters.adapter import Array, Feeds
from dnnsplit_onnx.converters.pytorch import PyTorch
from dnnsplit_onnx.converters.reasons import innermost, reason
from dnnsplit_onnx.errors import InputError

OPSET = 18  # the newest that the older exporter writes


class TorchScript(PyTorch):
    """A module that torch.jit made, with example inputs. See `PyTorch`."""

    def export(self, path: Path, feeds: Feeds) -> None:
        """Writes the module as ONNX. See `Adapter.export`."""
        import torch

        tensors = tuple(torch.from_numpy(feeds[spec.name]) for spec in self.inputs)
        axes = {
            spec.name: {at: dim for at, dim in enumerate(spec.shape) if isinstance(dim, str)}
            for spec in self.inputs
        }
        outputs = [f"{name}_out" if name in feeds else name for name, _ in self._outputs(feeds)]
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    self.module,
                    tensors,
                    str(path),
                    dynamo=False,
                    input_names=[spec.name for spec in self.inputs],
                    output_names=outputs,
                    dynamic_axes={name: dims for name, dims in axes.items() if dims},
                    opset_version=min(self.opset or OPSET, OPSET),
                )
        except Exception as error:  # whatever torch meets in the model
            raise InputError(
                f"torch cannot export the TorchScript module: {innermost(error)}",
                hint="convert the module that it was made from: package.module:function",
            ) from error

    def layer_of(self, node: onnx.NodeProto) -> str | None:
        """The path of the module that a node came from, read from the node's name."""
        path = node.name.strip("/").split("/")[:-1]
        return ".".join(path) or None

    def layer_outputs(self, feeds: Feeds) -> Iterator[tuple[str, Array]]:
        """None: scripted modules take no hooks."""
        del feeds
        return iter(())


def load_script(path: Path, arrays: Mapping[str, Array]) -> TorchScript:
    """Loads what torch.jit.save wrote.

    Args:
        path: The file.
        arrays: Inputs by name: the file holds none.

    Raises:
        InputError: It cannot be loaded, or inputs are missing.
    """
    import torch

    try:
        module = torch.jit.load(str(path), map_location="cpu")
    except Exception as error:  # anything can be wrong with a file
        raise InputError(f"torch cannot load `{path}` as TorchScript: {reason(error)}") from error
    names = [argument.name for argument in module.forward.schema.arguments[1:]]
    missing = [name for name in names if name not in arrays]
    if missing:
        keys = ", ".join(f"{name}=array" for name in missing)
        raise InputError(
            f"a TorchScript file holds no example of its inputs, {', '.join(missing)}",
            hint=f"write one with numpy.savez('X.npz', {keys}) and pass --input X.npz",
        )
    return TorchScript(module, {name: torch.from_numpy(arrays[name]) for name in names})
