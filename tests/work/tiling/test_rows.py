"""The arithmetic of windows, against windows slid by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from dnnsplit_onnx.work.tiling import Rows, shares
from dnnsplit_onnx.work.tiling.rows import Growth, Window

SIZES = st.integers(1, 6)


def slid(window: Window, rows: np.ndarray, before: int, after: int) -> list[tuple[float, ...]]:
    """What each output row sees of an input, padding as NaN."""
    padded = np.concatenate([np.full(before, np.nan), rows, np.full(after, np.nan)])
    starts = range(0, len(padded) - window.extent + 1, window.stride)
    return [tuple(padded[at : at + window.extent]) for at in starts]


@given(SIZES, SIZES, st.integers(0, 8), st.integers(0, 8), st.integers(1, 20), st.data())
def test_a_tile_sees_what_the_whole_sees(
    stride: int, extent: int, before: int, after: int, height: int, data: st.DataObject
) -> None:
    window = Window(stride, extent, before, after)
    whole = slid(window, np.arange(height, dtype=np.float64), before, after)
    assume(whole and stride <= extent)  # a window that jumps over rows may see none of them
    start = data.draw(st.integers(0, len(whole) - 1))
    wanted = Rows(start, data.draw(st.integers(start + 1, len(whole))))
    reading = window.reads(wanted, height)
    tile = np.arange(reading.rows.start, reading.rows.stop, dtype=np.float64)
    seen = slid(window, tile, reading.before, reading.after)
    assert len(tile) > 0
    assert reading.made.start <= wanted.start
    assert reading.made.stop >= wanted.stop
    np.testing.assert_equal(seen, whole[reading.made.start : reading.made.stop])
    if not all(np.isnan(row).all() for row in whole[wanted.start : wanted.stop]):
        assert reading.made == wanted  # nothing more than is needed


@given(st.integers(1, 4), st.integers(0, 2), st.integers(1, 20), st.data())
def test_growth_makes_all_that_is_wanted_from_whole_rows(
    factor: int, halo: int, height: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, height * factor - 1))
    wanted = Rows(start, data.draw(st.integers(start + 1, height * factor)))
    reading = Growth(factor, halo).reads(wanted, height)
    of_rows = range(reading.rows.start * factor, reading.rows.stop * factor)
    assert Rows(of_rows.start, of_rows.stop) == reading.made
    for row in range(wanted.start, wanted.stop):
        for neighbour in range(row // factor - halo, row // factor + halo + 1):
            assert reading.rows.start <= min(max(neighbour, 0), height - 1) < reading.rows.stop


@given(st.integers(1, 300), st.lists(st.floats(0.01, 100), min_size=1, max_size=6))
def test_shares_are_all_rows_and_within_one_of_their_proportion(height: int, speeds: list[float]) -> None:
    counts = shares(height, speeds)
    assert sum(counts) == height
    for count, speed in zip(counts, speeds, strict=True):
        assert abs(count - height * speed / sum(speeds)) < 1
