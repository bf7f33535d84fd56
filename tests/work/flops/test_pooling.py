from __future__ import annotations

from tests.work.flops.counting import MS, count, elementwise

X, Y = (1, 3, 8, 8), (1, 3, 4, 4)  # 192 and 48 elements
WINDOW = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 0]}


def test_max_pool() -> None:
    assert elementwise("MaxPool", [X], [Y], **WINDOW) == 432
    assert elementwise("MaxPool", [X], [Y, Y], **WINDOW) == 432  # indices are free
    assert elementwise("MaxPool", [(1, 3, 8)], [(1, 3, 4)], kernel_shape=[2]) == 24
    assert elementwise("MaxPool", [(1, 3, 8, 8, 8)], [(1, 3, 4, 4, 4)], kernel_shape=[2, 2, 2]) == 1536
    assert count("MaxPool", [X], ["?"], **WINDOW) is None
    assert count("MaxPool", [X], [Y]) is None


def test_average_pool() -> None:
    assert elementwise("AveragePool", [X], [Y], **WINDOW) == 480


def test_lp_pool() -> None:
    assert elementwise("LpPool", [X], [Y], p=1, **WINDOW) == 48 * 18
    assert elementwise("LpPool", [X], [Y], **WINDOW) == 48 * 19
    assert elementwise("LpPool", [X], [Y], p=3, **WINDOW) == 48 * 28


def test_global_pools() -> None:
    assert elementwise("GlobalMaxPool", [X]) == 192
    assert elementwise("GlobalAveragePool", [X]) == 195
    assert elementwise("GlobalLpPool", [X]) == 387
    assert elementwise("GlobalLpPool", [X], p=1) == 384
    assert count("GlobalAveragePool", [(3,)]) is None


def test_com_microsoft() -> None:
    assert elementwise("NhwcMaxPool", [(1, 8, 8, 3)], [(1, 4, 4, 3)], domain=MS, **WINDOW) == 432
    assert elementwise("MaxpoolWithMask", [X, X], [Y], domain=MS, **WINDOW) == 864
