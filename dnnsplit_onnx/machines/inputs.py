"""How inputs that are pictures cross links."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dnnsplit_onnx.graph.ports import FILES
from dnnsplit_onnx.machines.tables import LARGEST, Name, NotNegative, Table


class InputCode(Table):
    """How a model input that is a picture crosses links.

    Attributes:
        code: `jpeg` or `png`: its file, which the tier that reads the input decodes.
            `uint8-image`: its pixels, which the lowest tier decodes.
        nbytes: Bytes of such a file; measured on samples where that is left out.
        decode_ms: What decoding one takes, by the names of tiers; of others that is estimated
            from the file's bytes and the tier's memory (`planning.picture_files`).
    """

    key: ClassVar[str] = "input"

    code: Literal["jpeg", "png", "uint8-image"]
    nbytes: Annotated[int, Field(gt=0, le=LARGEST)] | None = None
    decode_ms: dict[Name, NotNegative] = Field(default_factory=dict)

    @property
    def is_file(self) -> bool:
        """Whether the file crosses links."""
        return self.code in FILES
