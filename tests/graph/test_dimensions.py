"""What open dimensions are called, and the arithmetic that their names hold."""

from __future__ import annotations

import pytest

from dnnsplit_onnx.graph.dimensions import names_in, open_names, size_of


@pytest.mark.parametrize(
    ("dim", "size"),
    [
        ("past + seq", 7),
        ("past_seq+1", None),
        ("2*seq", 4),
        ("(past + 1) * seq - 3", 9),
        ("past // seq", 2),
        ("past/2", 2),
        ("past - seq - 1", 2),
        ("past - (seq - 1)", 4),
        ("past // (seq - 2)", None),
        ("seq", 2),
        ("+ seq", None),
        ("(past + seq", None),
        ("batch size", None),
        ("?", None),
    ],
)
def test_arithmetic_on_bound_names(dim: str, size: int | None) -> None:
    assert size_of(dim, "x", 1, {"past": 5, "seq": 2}) == size


def test_a_hyphen_between_letters_is_part_of_a_name() -> None:
    assert names_in("batch-size") == ("batch-size",)
    assert names_in("past - size") == ("past", "size")


def test_an_axis_has_a_name_of_its_own_that_goes_first() -> None:
    assert size_of("n", "x", 1, {"n": 2, "x.1": 3}) == 3
    assert size_of("past + seq", "mask", 1, {"past + seq": 9, "past": 1, "seq": 1}) == 9


def test_names_that_mean_nothing_are_bound_axis_by_axis() -> None:
    assert open_names("?", "x", 2, {}) == ("x.2",)
    assert open_names("past + seq", "mask", 1, {"past": 3}) == ("seq",)
    assert open_names(None, "x", 0, {"x.0": 1}) == ()
