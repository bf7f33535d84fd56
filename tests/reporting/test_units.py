"""Numbers as people write them."""

from __future__ import annotations

import math

import pytest

from dnnsplit_onnx.reporting import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "?"),
        (math.nan, "?"),
        (math.inf, "never"),
        (0, "0 s"),
        (8.12e-4, "812 µs"),
        (9.996e-4, "1.00 ms"),
        (0.0451, "45.1 ms"),
        (0.9996, "1.00 s"),
        (2.307, "2.31 s"),
        (119, "119 s"),
        (200, "3 min 20 s"),
        (7300, "2.03 h"),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    assert units.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "?"),
        (-1, "?"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_950, "1.00 MB"),
        (401_408, "401 kB"),
    ],
)
def test_nbytes(value: int | None, text: str) -> None:
    assert units.nbytes(value) == text


def test_other_units() -> None:
    assert units.flops(8_217_639_280) == "8.22 GFLOP"
    assert units.flops(None) == "?"
    assert units.usd(1.812e-6) == "$1.81e-06"
    assert units.usd(1234.5) == "$1,234.50"
    assert units.usd(0) == "$0"
    assert units.usd(math.nan) == "?"
    assert units.per_second(22.13) == "22.1/s"
    assert units.per_second(math.inf) == "unlimited"
    assert units.per_second(None) == "?"
    assert units.joules(0.31) == "310 mJ"
    assert units.joules(12) == "12.0 J"
    assert units.joules(None) == "?"
    assert units.times(1.934) == "1.93x"
    assert units.times(3.2e7) == "3.2e+07x"
    assert units.percent(1, 3) == "33.3%"
    assert units.percent(1, 0) == "?"
    assert units.count(1, "node") == "1 node"
    assert units.count(1746, "node") == "1,746 nodes"
    assert units.milliseconds(1.5) == "1.50 ms"


def test_names_are_listed_and_cleaned() -> None:
    assert units.listed(["a", "b"]) == "`a`, `b`"
    assert units.listed(["a", "b", "c"], 1) == "`a` and 2 more"
    assert units.clean("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
