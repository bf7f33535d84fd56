"""The unit of analytic cost: what one execution of a node computes and moves.

FLOPs are defined once, here: a multiply-add is two, every other arithmetic operation on
one element (add, compare, exp, divide, round ...) is one. MACs are what public tools
often call "GFLOPs"; they are kept apart, because the two differ by a factor of two on
convolutions and by everything on element-wise work.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """What one execution of a node costs.

    Attributes:
        macs: Multiply-adds.
        elementwise: Arithmetic operations that are not part of a multiply-add.
    """

    macs: int = 0
    elementwise: int = 0

    @property
    def flops(self) -> int:
        """2 x MACs plus one per element-wise operation: the work that planners charge."""
        return 2 * self.macs + self.elementwise

    def __add__(self, other: Work) -> Work:
        return Work(self.macs + other.macs, self.elementwise + other.elementwise)

    def __mul__(self, times: int) -> Work:
        return Work(self.macs * times, self.elementwise * times)
