"""What went wrong inside a framework, in one line, and what may help."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from dnnsplit_onnx.errors import InputError

_LONGEST = 300

# What torch's exporter cannot take, by what it says of it, and the way out.
_CAUSES = (
    (
        r"data-dependent|GuardOnDataDependent|Could not guard|control flow",
        "its code decides by values of a tensor: write torch.where(condition, a, b), or torch.cond",
    ),
    (
        r"No ONNX function found|No decompositions registered",
        "the operator has no form in ONNX: compute the same from others, such as sums and products",
    ),
    (
        r"PackedSequence|pack_padded|_pack",
        "packed sequences have no form in ONNX: run the layer on the padded batch, and mask its result",
    ),
    (
        r"quantized",
        "quantised modules have no export: convert the float module, and quantise the ONNX file",
    ),
    (
        r"ScriptModule|ScriptFunction|torch\.jit",
        "pass the module that was scripted, not what torch.jit made of it",
    ),
    (
        r"expand.*3|attn_mask|attention",
        "attention of three dimensions: add a batch, x.unsqueeze(0), around it",
    ),
)
_PLACE = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')
_LIBRARY = re.compile(r"site-packages|dist-packages|[/\\]lib[/\\]python|<")
_HERE = str(Path(__file__).parent)


def reason(error: BaseException) -> str:
    """The class of an error and the first line it says.

    Frameworks write paragraphs; all of it stays in the traceback.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:_LONGEST]}" if lines else type(error).__name__


def innermost(error: BaseException) -> str:
    """The same for the error that caused it all."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason(error)


def refusal(error: BaseException, has_open: bool) -> InputError:
    """What torch's exporter refused, with the place in the author's code and what may help.

    Args:
        error: What the exporter raised.
        has_open: Whether the model had open dimensions.
    """
    said = "".join(traceback.format_exception(error))
    places = [
        place
        for place in _PLACE.findall(said)
        if not (_LIBRARY.search(place[0]) or place[0].startswith(_HERE))
    ]
    where = (
        f"in {places[-1][0].rpartition('/')[2]}, line {places[-1][1]}, {places[-1][2]}()" if places else None
    )
    hint = next((fix for pattern, fix in _CAUSES if re.search(pattern, said)), None)
    if hint is None:
        fix = "if a size must be fixed, pass --batch 1 (or --bind DIM=N); " if has_open else ""
        hint = f"{fix}--debug shows where in the model"
    return InputError(f"torch cannot export the model: {innermost(error)}", context=where, hint=hint)
