"""`image`: a model that reads pictures in place of normalised pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dnnsplit_onnx.cli.options import Force, Model, Reporting, takes
from dnnsplit_onnx.errors import InputError


@takes(Reporting)
def image(
    model: Model,
    options: Reporting,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The model to write.", show_default=False)
    ],
    value: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="NAME", help="The input. [default: the model's only one]", show_default=False
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="HEIGHTxWIDTH",
            help="The picture's size, where the model leaves it open.",
            show_default=False,
        ),
    ] = None,
    layout: Annotated[
        Literal["nchw", "nhwc"], typer.Option("--layout", help="Channels first, or last.")
    ] = "nchw",
    order: Annotated[
        Literal["rgb", "bgr"], typer.Option("--order", help="Which colour the model reads first.")
    ] = "rgb",
    mean: Annotated[
        str, typer.Option("--mean", metavar="M[,M,M]", help="Subtracted from each pixel (0 to 255).")
    ] = "0",
    scale: Annotated[
        str,
        typer.Option(
            "--scale", metavar="S[,S,S]", help="Multiplies what is left; a fraction such as 1/255 will do."
        ),
    ] = "1/255",
    force: Force = False,
) -> None:
    """Have a model read a picture, bytes from 0 to 255, in place of normalised pixels.

    (pixel - mean) * scale, layout and order of colours become nodes in front of the model. So
    what a tier sends on of its input is the picture as bytes, and `run --input photo.jpg` will do.

    Example: dnnsplit-onnx image model.onnx --size 224x224 --mean 127.5 --scale 1/127.5 -o photo.onnx
    """
    from dnnsplit_onnx.cli.loading import model_file
    from dnnsplit_onnx.graph.picturing import Normalisation
    from dnnsplit_onnx.slicing.picturing import with_picture

    normalisation = Normalisation(layout, order, _numbers("--mean", mean), _numbers("--scale", scale))
    path = model_file(model)
    name = with_picture(path, output, value=value, size=_size(size), normalisation=normalisation, force=force)
    if options.json:
        from dnnsplit_onnx.cli.output import print_json

        print_json({"model": str(output), "input": name})
        return
    typer.echo(f"wrote {output}: its input `{name}` is a picture, uint8 of shape [1, height, width, 3]")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()) or not 0 < int(height) * int(width) < 1 << 28:
        raise InputError(f"cannot read `--size {text}`", hint="write HEIGHTxWIDTH, such as 224x224")
    return int(height), int(width)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    """Numbers, each as it is or as a fraction."""
    try:
        parts = [part.partition("/") for part in text.split(",")]
        return tuple(float(top) / (float(bottom) if slash else 1.0) for top, slash, bottom in parts)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"cannot read `{option} {text}`", hint="such as 127.5, or 104,117,123") from None
