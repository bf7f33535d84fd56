"""How inputs that are pictures cross links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from dnnsplit_onnx.graph.ports import FILES
from dnnsplit_onnx.machines.tables import LARGEST, Name, NotNegative, Table

if TYPE_CHECKING:
    from dnnsplit_onnx.graph.picturing import Normalisation

Real = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]


class InputCode(Table):
    """How a model input that is a picture crosses links.

    Attributes:
        code: `jpeg` or `png`: its file, which the tier that reads the input decodes.
            `uint8-image`: its pixels, which the lowest tier decodes.
        nbytes: Bytes of such a file; measured on samples where that is left out.
        decode_ms: What decoding one takes, by the names of tiers; of others that is estimated
            from the file's bytes and the tier's memory (`planning.picture_files`).
        layout: Channels first, or last: how a model of floats reads its pixels, as are the
            following (`graph.picturing`). One that reads uint8 takes them as they are.
        order: Red first, or blue.
        size: Height and width, where the model leaves them open.
        mean, scale: (pixel - mean) * scale of pixels from 0 to 255: one number, or three in that
            order.
    """

    key: ClassVar[str] = "input"

    code: Literal["jpeg", "png", "uint8-image"]
    nbytes: Annotated[int, Field(gt=0, le=LARGEST)] | None = None
    decode_ms: dict[Name, NotNegative] = Field(default_factory=dict)
    layout: Literal["nchw", "nhwc"] = "nchw"
    order: Literal["rgb", "bgr"] = "rgb"
    size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None
    mean: Real | tuple[Real, Real, Real] | None = None
    scale: Real | tuple[Real, Real, Real] | None = None

    @property
    def normalisation(self) -> Normalisation | None:
        """What a model of floats wants of its pixels; None if that is not said."""
        if self.mean is None and self.scale is None:
            return None
        from dnnsplit_onnx.graph.picturing import Normalisation  # loads onnx, which reading a file needs not

        mean, scale = 0.0 if self.mean is None else self.mean, 1.0 if self.scale is None else self.scale
        return Normalisation(self.layout, self.order, _each(mean), _each(scale))

    @property
    def is_file(self) -> bool:
        """Whether the file crosses links."""
        return self.code in FILES


def _each(number: float | tuple[float, ...]) -> tuple[float, ...]:
    return number if isinstance(number, tuple) else (number,)
