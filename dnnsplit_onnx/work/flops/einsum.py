"""Einsum with any equation.

The definition. Operands are contracted pairwise from left to right, and each pair is one naive loop nest
over every index that occurs in it: a MAC per iteration. An index that neither the rest of the operands
nor the result mentions is summed in the first pair that can. A pair in which nothing is summed is a
broadcast product, so its iterations are element-wise multiplications and not MACs. A single operand costs
an addition per element if it is summed over (a diagonal or transposition is free).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod

from dnnsplit_onnx.work.flops.registry import register
from dnnsplit_onnx.work.flops.view import NodeView, Shape, UnknownWork
from dnnsplit_onnx.work.flops.work import Work

_TERM = re.compile(r"([A-Za-z]*)(\.\.\.)?([A-Za-z]*)")


@register("Einsum")
def einsum(node: NodeView) -> Work:
    """Einsum: the MACs of left-to-right pairwise contraction; see the module."""
    shapes = [node.input_shape(index) for index in range(len(node.node.input))]
    return contraction_work(node.text_attribute("equation", ""), shapes)


def contraction_work(equation: str, shapes: Sequence[Shape]) -> Work:
    """The work of an Einstein summation.

    Args:
        equation: As in `numpy.einsum`: with or without `->`, with or without ellipses.
        shapes: The shapes of the operands.

    Raises:
        UnknownWork: The equation does not fit the shapes.
    """
    terms, result = _parse(equation, [len(shape) for shape in shapes])
    sizes = _index_sizes(terms, shapes)
    if len(terms) == 1:
        summed = set(terms[0]) - set(result)
        return Work(elementwise=_iterations(terms[0], sizes) if summed else 0)
    work = Work()
    left = set(terms[0])
    for position, term in enumerate(terms[1:], start=1):
        left |= set(term)
        kept = left & set(result).union(*terms[position + 1 :])
        iterations = _iterations(left, sizes)
        work += Work(elementwise=iterations) if kept == left else Work(macs=iterations)
        left = kept
    return work


def _iterations(indices: Sequence[str] | set[str], sizes: dict[str, int]) -> int:
    return prod(sizes[index] for index in set(indices))


def _parse(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """The indices of each operand and of the result; the k-th ellipsis index from the right is `...k`."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    texts = inputs.split(",")
    if len(texts) != len(ranks) or not ranks:
        raise UnknownWork
    terms = [_indices(text, rank) for text, rank in zip(texts, ranks, strict=True)]
    widest = max((sum(index.startswith("...") for index in term) for term in terms), default=0)
    if arrow:
        named = _TERM.fullmatch(output)
        if named is None:
            raise UnknownWork
        return terms, [*named[1], *(_ellipsis(widest) if named[2] else ()), *named[3]]
    letters = [letter for letter in inputs if letter.isalpha()]
    once = [letter for letter in sorted(set(letters)) if letters.count(letter) == 1]
    return terms, [*_ellipsis(widest), *once]


def _ellipsis(count: int) -> list[str]:
    return [f"...{place}" for place in range(count, 0, -1)]


def _indices(text: str, rank: int) -> list[str]:
    named = _TERM.fullmatch(text)
    if named is None:
        raise UnknownWork
    hidden = rank - len(named[1]) - len(named[3])
    if hidden < 0 or (hidden and not named[2]):
        raise UnknownWork
    return [*named[1], *_ellipsis(hidden), *named[3]]


def _index_sizes(terms: Sequence[Sequence[str]], shapes: Sequence[Shape]) -> dict[str, int]:
    """The range of each index; a dimension of 1 broadcasts."""
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for index, dim in zip(term, shape, strict=True):
            known = sizes.setdefault(index, dim)
            if known == 1:
                sizes[index] = dim
            elif dim not in (1, known):
                raise UnknownWork
    return sizes
