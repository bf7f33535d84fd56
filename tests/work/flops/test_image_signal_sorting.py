from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx.work.flops import Work
from tests.work.flops.counting import MS, count, elementwise, work_of

SMALL, LARGE = (1, 3, 10, 10), (1, 3, 20, 20)  # 300 and 1200 elements


@pytest.mark.parametrize(
    ("mode", "operations"),
    [("nearest", 0), ("linear", 1200 * 2 * 4), ("cubic", 1200 * 2 * 16)],
)
def test_resize(mode: str, operations: int) -> None:
    inputs = [SMALL, None, np.array([1, 1, 2, 2], np.float32)]
    assert elementwise("Resize", inputs, [LARGE], mode=mode, opset=13) == operations
    assert elementwise("Resize", [SMALL, (4,)], [LARGE], mode=mode, opset=10) == operations


def test_resize_counts_the_axes_that_change() -> None:
    assert elementwise("Resize", [SMALL, None, (4,)], [(1, 3, 10, 20)], mode="linear") == 600 * 2 * 2
    assert elementwise("Resize", [SMALL, None, (4,)], [SMALL], mode="linear") == 0
    # Shrinking 20 to 8 with antialias widens the 2 neighbours by 3 (20 / 8, rounded up).
    shrunk = (1, 3, 8, 20)
    assert elementwise("Resize", [LARGE, None, (4,)], [shrunk], mode="linear") == 480 * 2 * 2
    assert elementwise("Resize", [LARGE, None, (4,)], [shrunk], mode="linear", antialias=1) == 480 * 2 * 6
    assert count("Resize", [SMALL, None, (4,)], ["?"], mode="linear") is None
    assert elementwise("Resize", [SMALL, None, (4,)], ["?"]) == 0  # nearest
    assert count("Resize", [SMALL, None, (4,)], [LARGE], mode="mystery") is None
    assert count("Resize", [SMALL, None, (4,)], [(3, 20, 20)], mode="linear") is None


def test_upsample() -> None:
    assert (
        elementwise("Upsample", [SMALL], [LARGE], opset=7, mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]) == 0
    )
    assert elementwise("Upsample", [SMALL, (4,)], [LARGE], opset=9, mode="linear") == 9600
    assert elementwise("Upsample", [SMALL], [LARGE], opset=1, mode="bilinear") == 9600


@pytest.mark.parametrize(
    ("options", "operations"),
    [
        # 50 coordinates, 3 x 25 results
        ({"mode": "linear"}, 200 + 75 * 8),
        ({"mode": "bilinear", "align_corners": 1}, 150 + 75 * 8),
        ({"mode": "bicubic"}, 200 + 75 * 32),
        ({"mode": "nearest"}, 250),
    ],
)
def test_grid_sample(options: dict[str, object], operations: int) -> None:
    assert elementwise("GridSample", [SMALL, (1, 5, 5, 2)], **options) == operations
    assert elementwise("GridSample", [SMALL, (1, 5, 5, 2)], domain=MS, **options) == operations


def test_grid_sample_in_three_dimensions() -> None:
    # 3 x 8 coordinates, 2 x 8 results of 8 neighbours
    assert elementwise("GridSample", [(1, 2, 4, 4, 4), (1, 2, 2, 2, 3)]) == 96 + 256
    assert elementwise("GridSample", [(1, 2, 4, 4, 4), (1, 2, 2, 2, 3)], mode="trilinear") == 96 + 256
    assert count("GridSample", [(1, 2, 4, 4, 4), (1, 2, 2, 2)]) is None


def test_affine_grid() -> None:
    assert work_of("AffineGrid", [(2, 2, 3), (4,)], [(2, 5, 6, 2)]) == Work(360, 0)
    assert work_of("AffineGrid", [(1, 3, 4), (5,)], [(1, 2, 5, 6, 3)]) == Work(720, 0)


def test_regions() -> None:
    # 7 regions x 3 channels x 4 x 4 results of 4 samples of 9, and a division
    options = {"output_height": 4, "output_width": 4, "sampling_ratio": 2}
    inputs = [SMALL, (7, 4), (7,)]
    assert elementwise("RoiAlign", inputs, **options) == 336 * 37
    assert elementwise("RoiAlign", inputs, mode="max", **options) == 336 * 36
    assert elementwise("RoiAlign", inputs, sampling_ratio=2) == 21 * 37  # 1 x 1 by default
    assert count("RoiAlign", inputs, output_height=4, output_width=4) is None  # adaptive: data decides
    assert elementwise("MaxRoiPool", [SMALL, (7, 5)], pooled_shape=[2, 2]) == 2100
    crops = [SMALL, (7, 4), (7,), (2,)]
    assert elementwise("CropAndResize", crops, [(7, 3, 4, 4)], domain=MS) == 336 * 8
    assert elementwise("CropAndResize", crops, [(7, 3, 4, 4)], domain=MS, mode="nearest") == 0


def test_non_max_suppression() -> None:
    # 100 boxes (areas: 3 each), 5 classes; sorting 100 scores: 700 comparisons
    boxes, scores = (1, 100, 4), (1, 5, 100)
    assert elementwise("NonMaxSuppression", [boxes, scores]) == 300 + 5 * 700
    ten = [boxes, scores, np.array([10])]
    assert elementwise("NonMaxSuppression", ten) == 300 + 5 * (700 + 13 * 1000)
    unknown = [boxes, scores, (1,)]
    assert elementwise("NonMaxSuppression", unknown) == 300 + 5 * (700 + 13 * 4950)
    thresholds = [boxes, scores, np.array([10]), (1,), (1,)]
    assert elementwise("NonMaxSuppression", thresholds, center_point_box=1) == 700 + 5 * (800 + 13_000)


def test_windows() -> None:
    assert elementwise("HannWindow", [()], [(400,)]) == 1600
    assert elementwise("HammingWindow", [()], [(400,)]) == 1600
    assert elementwise("BlackmanWindow", [()], [(400,)]) == 3200
    assert elementwise("MelWeightMatrix", [(), (), (), (), ()], [(257, 80)]) == 41_120
    assert count("HannWindow", [()], ["?"]) is None


def test_dft() -> None:
    # 3 signals of 256: 5 x 256 x 8, half of it for a real signal
    real, spectrum = (3, 256, 1), (3, 256, 2)
    assert elementwise("DFT", [real], [spectrum], opset=20) == 15_360
    assert elementwise("DFT", [spectrum], [spectrum], opset=20) == 30_720
    assert elementwise("DFT", [real], [(3, 129, 2)], opset=20, onesided=1) == 15_360
    assert elementwise("DFT", [spectrum], [spectrum], opset=20, inverse=1) == 30_720 + 1536
    assert elementwise("DFT", [(3, 129, 2)], [real], opset=20, onesided=1, inverse=1) == 15_360 + 768


def test_dft_axis_and_length() -> None:
    signal = (4, 100, 1)
    assert elementwise("DFT", [signal], [(4, 100, 2)], opset=17) == 4 * 1750  # axis 1: ceil(log2 100) = 7
    assert elementwise("DFT", [signal], [(4, 100, 2)], opset=17, axis=0) == 100 * 20
    inputs = [signal, np.array(128), np.array(1)]
    assert elementwise("DFT", inputs, [(4, 128, 2)], opset=20) == 4 * 2240
    assert count("DFT", [signal, None, ()], [(4, 100, 2)], opset=20) is None  # the axis is data
    assert (
        elementwise("DFT", [signal, ()], [(4, 128, 2)], opset=20) == 4 * 2240
    )  # two-sided: shows its length
    assert count("DFT", [signal, ()], [(4, 65, 2)], opset=20, onesided=1) is None


def test_stft() -> None:
    # 2 signals, 98 frames of 400: the window 400, a real transform 2.5 x 400 x 9
    inputs = [(2, 16000, 1), (), (400,)]
    assert elementwise("STFT", inputs, [(2, 98, 201, 2)]) == 196 * (400 + 9000)
    complex_inputs = [(2, 16000, 2), (), (400,)]
    assert elementwise("STFT", complex_inputs, [(2, 98, 400, 2)], onesided=0) == 196 * (800 + 18_000)
    no_window = [(2, 16000, 1), (), None, np.array(400)]
    assert elementwise("STFT", no_window, [(2, 98, 201, 2)]) == 196 * 9000
    assert count("STFT", [(2, 16000, 1), (), None, ()], [(2, 98, 201, 2)]) is None
    # Neither a window nor a length: one frame of the whole signal.
    assert elementwise("STFT", [(2, 256, 1), ()], [(2, 1, 129, 2)]) == 2 * 5120
    assert elementwise("STFT", [(2, 256), ()], [(2, 1, 129, 2)]) == 2 * 5120
    assert count("STFT", [(256,), ()], [(2, 1, 129, 2)]) is None


def test_real_transforms_of_com_microsoft() -> None:
    options = {"domain": MS, "onesided": 1, "signal_ndim": 1}
    assert elementwise("Rfft", [(3, 256)], **options) == 15_360
    assert elementwise("Irfft", [(3, 129, 2)], [(3, 256)], **options) == 15_360
    options["signal_ndim"] = 2
    assert elementwise("Rfft", [(3, 16, 16)], **options) == 15_360
    options["signal_ndim"] = 4
    assert count("Rfft", [(3, 16, 16)], **options) is None


def test_top_k() -> None:
    # 2 x 1000 elements against a heap of k: ceil(log2 5) = 3
    assert elementwise("TopK", [(2, 1000), np.array([5])], ["?", "?"]) == 6000
    assert elementwise("TopK", [(2, 1000), (1,)], [(2, 5), (2, 5)]) == 6000
    assert elementwise("TopK", [(2, 1000)], [(2, 5), (2, 5)], opset=1, k=5) == 6000
    assert elementwise("TopK", [(2, 1000), np.array([5])], ["?", "?"], opset=10) == 6000
    assert elementwise("TopK", [(2, 1000), np.array([1])], ["?", "?"]) == 2000
    assert count("TopK", [(2, 1000), (1,)], ["?", "?"]) is None


@pytest.mark.parametrize("domain", ["", MS])
def test_unique(domain: str) -> None:
    # Sorting 100 takes 700, comparing neighbours 100.
    assert elementwise("Unique", [(10, 10)], domain=domain) == 800


def test_unique_slices() -> None:
    # 4 slices of 25: 4 x 2 comparisons to sort them, 4 to tell them apart
    assert elementwise("Unique", [(4, 25)], axis=0) == 300


def test_matrices() -> None:
    # 2 x 2: one division, two for the update, one product; 3 x 3: 3, 10, 2
    assert elementwise("Det", [(2, 2)]) == 4
    assert elementwise("Det", [(7, 3, 3)]) == 105
    assert elementwise("Det", [(1, 1)]) == 0
    assert count("Det", [(2, 3)]) is None
    assert elementwise("Inverse", [(7, 3, 3)], domain=MS) == 378


@pytest.mark.parametrize("op_type", ["ScatterElements", "ScatterND"])
def test_scatter(op_type: str) -> None:
    inputs = [(10, 10), (4, 1), (4, 10)]
    assert elementwise(op_type, inputs) == 0
    assert elementwise(op_type, inputs, reduction="add") == 40


def test_col2im() -> None:
    assert elementwise("Col2Im", [(1, 27, 36), (2,), (2,)]) == 972
