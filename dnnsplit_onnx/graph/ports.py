"""What enters or leaves a model or a slice, as a record that files carry."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

#: Codes of inputs that travel as a picture's file.
FILES = ("jpeg", "png")


class Port(BaseModel):
    """A value that enters or leaves a slice.

    Attributes:
        name: The value's name, the same in every slice.
        dtype: Element type as onnx spells it in lower case (`float`, `int64`), None if unknown.
        shape: A number, a symbolic name or None for each dimension; None if the rank is
            unknown.
        kind: "tensor", or "sequence", "optional", "map".
        code: The code that it is written in, if it is one tensor of a coded value; or the kind of file
            that a model's input travels as, which is pixels once it is decoded.
        stands_for: The name of the coded value.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    name: str
    dtype: str | None = None
    shape: tuple[int | str | None, ...] | None = None
    kind: str = "tensor"
    # Left out where there is none, so that what has no codes is written as it always was.
    code: str | None = Field(default=None, exclude_if=lambda code: code is None)
    stands_for: str | None = Field(default=None, exclude_if=lambda value: value is None)

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether a shape is of this rank, and of these sizes where they are numbers."""
        wanted = self.shape
        if wanted is None:
            return True
        if len(wanted) != len(shape):
            return False
        for dim, size in zip(wanted, shape, strict=True):  # a generator would take twice as long
            if dim != size and isinstance(dim, int):
                return False
        return True

    @property
    def is_file(self) -> bool:
        """Whether it may travel as the bytes of a picture's file: uint8 of one dimension."""
        return self.code in FILES

    @property
    def is_picture(self) -> bool:
        """Whether it is the pixels of one picture: uint8 of shape [1, height, width, 3]."""
        if self.kind != "tensor" or self.dtype != "uint8" or self.shape is None or len(self.shape) != 4:
            return False
        batch, height, width, channels = self.shape
        return (
            channels == 3
            and (batch == 1 or not isinstance(batch, int))
            and isinstance(height, int)
            and isinstance(width, int)
        )
