"""Ways to send a model's input that are smaller than its tensor.

Whoever has a camera's picture as a JPEG need not send it as floats. What an encoding takes on a link
is the topology's `input_nbytes`, or `input`, by which decoding is charged too; encoding is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from onnx import TensorProto

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.machines.inputs import InputCode
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.picture_files import files_nbytes
from dnnsplit_onnx.work.analysis import Analysis

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})
_CHANNELS, _RANK = (1, 3), 4


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way to send the inputs.

    Attributes:
        name: What they are sent as.
        answers: Whether the model answers the same, or something close.
        assumes: What is taken for granted, a sentence.
        input_nbytes: Bytes on a link, by the inputs' names.
        files: Inputs that cross as files, which whoever reads them decodes.
    """

    name: str
    answers: Literal["same", "close"] = "same"
    assumes: str = ""
    input_nbytes: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, InputCode] = field(default_factory=dict)

    def on(self, topology: Topology) -> Topology:
        """The topology with the inputs sent so."""
        return topology.changed(input_nbytes=dict(self.input_nbytes), input=dict(self.files))


#: Inputs as they are.
TENSOR = Encoding("tensor")


def encodings(analysis: Analysis, topology: Topology, bits_per_pixel: float) -> tuple[Encoding, ...]:
    """What is known of smaller inputs: what the tiers file says, else what pictures take.

    Args:
        analysis: The model.
        topology: Its `input_nbytes` and `input` come first.
        bits_per_pixel: Of a JPEG.

    Raises:
        InputError: A JPEG cannot take so many bits.
    """
    if not bits_per_pixel > 0:
        raise InputError(
            f"a JPEG of {bits_per_pixel:g} bits a pixel is none", hint="give a number above 0, such as 2"
        )
    if topology.input_nbytes or topology.input:
        sizes = topology.input_nbytes | files_nbytes(topology)
        said = ", ".join(f"{nbytes:,} for `{name}`" for name, nbytes in sizes.items())
        assumes = f"bytes of inputs are those of the tiers file: {said}" if said else ""
        stated = Encoding("input as stated", "close", assumes, topology.input_nbytes, topology.input)
        return (stated,)
    picture = _picture(analysis)
    if picture is None:
        return ()
    name, elements, channels, is_bytes = picture
    jpeg = max(1, round(elements / channels * bits_per_pixel / 8))
    said = (
        f"a JPEG of `{name}` takes {bits_per_pixel:g} bits a pixel, {jpeg:,} bytes, and is there before "
        "anybody asks; a tier decodes it at the speed of its memory; what its losses do to the answers "
        "was not measured"
    )
    file = Encoding("JPEG input", "close", said, files={name: InputCode(code="jpeg", nbytes=jpeg)})
    if is_bytes:
        return (file,)
    said = (
        f"`{name}` is made of {elements:,} bytes of pixels, which are normalised above "
        "(`image MODEL` writes such a model)"
    )
    return Encoding("uint8 input", "same", said, {name: elements}), file


def _picture(analysis: Analysis) -> tuple[str, int, int, bool] | None:
    """The one input that is a picture: its name, elements, channels, and whether it is bytes already."""
    inputs = analysis.graph.fresh_inputs
    if len(inputs) != 1:
        return None
    kind = analysis.types[inputs[0]]
    sizes = [size for size in kind.shape or () if isinstance(size, int)]
    is_bytes = kind.dtype == TensorProto.UINT8
    if len(sizes) != _RANK or len(kind.shape or ()) != _RANK or not (is_bytes or kind.dtype in _FLOATS):
        return None
    channels = next((sizes[at] for at in (1, 3) if sizes[at] in _CHANNELS), None)
    return None if channels is None or min(sizes) < 1 else (inputs[0], prod(sizes), channels, is_bytes)
