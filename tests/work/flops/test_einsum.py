from __future__ import annotations

import pytest

from dnnsplit_onnx.work.flops import Work
from tests.work.flops.counting import count, work_of

Shapes = list[tuple[int, ...]]


@pytest.mark.parametrize(
    ("equation", "shapes", "work"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)], Work(60, 0)),
        ("ij,jk", [(3, 4), (4, 5)], Work(60, 0)),  # implicit result
        (" i j , j k -> i k ", [(3, 4), (4, 5)], Work(60, 0)),
        ("bhqd,bhkd->bhqk", [(2, 12, 64, 32), (2, 12, 128, 32)], Work(6_291_456, 0)),
        ("...ij,...jk->...ik", [(2, 7, 3, 4), (7, 4, 5)], Work(840, 0)),  # the ellipses broadcast
        ("...ij,jk", [(2, 7, 3, 4), (4, 5)], Work(840, 0)),
        ("bi,bi->", [(3, 4), (3, 4)], Work(12, 0)),
        ("Ab,bA->A", [(3, 4), (4, 3)], Work(12, 0)),  # case matters
        ("ij,ij->j", [(1, 4), (3, 4)], Work(12, 0)),  # a dimension of 1 broadcasts
        ("ij,ij->j", [(3, 4), (1, 4)], Work(12, 0)),
        ("...ij,...jk->ik...", [(7, 3, 4), (7, 4, 5)], Work(420, 0)),
        # Nothing is summed: products, not MACs.
        ("i,j->ij", [(3,), (4,)], Work(0, 12)),
        ("ij,ij->ij", [(3, 4), (3, 4)], Work(0, 12)),
        # One operand: an addition per element if it is summed over, nothing if it is only rearranged.
        ("ij->ji", [(3, 4)], Work(0, 0)),
        ("ii->i", [(4, 4)], Work(0, 0)),
        ("ij->i", [(3, 4)], Work(0, 12)),
        ("ij->", [(3, 4)], Work(0, 12)),
        ("ii", [(4, 4)], Work(0, 4)),
        ("...->", [(2, 3)], Work(0, 6)),
        # Left to right: (3 x 4) x (4 x 5) is 60 MACs, its result times (5 x 6) is 90.
        ("ij,jk,kl->il", [(3, 4), (4, 5), (5, 6)], Work(150, 0)),
        # The first pair is an outer product (12), then i and j are summed with the third operand.
        ("i,j,ij->", [(3,), (4,), (3, 4)], Work(12, 12)),
        # i is needed by nobody after the first operand meets the second.
        ("ij,j,k->k", [(3, 4), (4,), (5,)], Work(12, 5)),
    ],
)
def test_equations(equation: str, shapes: Shapes, work: Work) -> None:
    assert work_of("Einsum", shapes, equation=equation) == work


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (5, 6)]),
        ("ij,jk->ik", [(3, 4)]),
        ("ij->i", [(3, 4, 5)]),
        ("i.j->i", [(3, 4)]),
        ("", []),
        ("ij->i?", [(3, 4)]),
    ],
)
def test_equations_that_do_not_fit(equation: str, shapes: Shapes) -> None:
    assert count("Einsum", shapes, equation=equation) is None


def test_unknown_operand() -> None:
    assert count("Einsum", [(3, 4), "?"], equation="ij,jk->ik") is None
