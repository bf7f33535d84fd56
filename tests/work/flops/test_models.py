"""The real topologies that the onnx package ships, against MACs worked out by hand."""

from __future__ import annotations

import time
from functools import cache

import onnx
import pytest
from coverage import Coverage

from dnnsplit_onnx.work.flops import Work, count_node
from tests.conftest import light
from tests.work.flops.counting import context_of


@cache
def model(name: str) -> onnx.ModelProto:
    # Weights come from ConstantOfShape nodes, so their shapes need data propagation.
    return onnx.shape_inference.infer_shapes(onnx.load(light(name)), data_prop=True)


def by_operator(name: str) -> dict[str, Work]:
    graph, context = model(name).graph, context_of(model(name))
    totals: dict[str, Work] = {}
    for node in graph.node:
        work = count_node(node, context)
        assert work is not None, node.op_type
        totals[node.op_type] = totals.get(node.op_type, Work()) + work
    return totals


def test_resnet50() -> None:
    totals = by_operator("resnet50")
    assert totals["Conv"] == Work(4_087_136_256, 0)
    assert totals["Gemm"] == Work(2_048_000, 1000)
    assert sum((work.macs for work in totals.values()), 0) == 4_089_184_256
    # 11,113,984 convolution outputs are normalised in 2 each; the residual sums are 16 tensors.
    assert totals["BatchNormalization"] == Work(0, 22_227_968)
    assert totals["Sum"] == Work(0, 5_519_360)
    # 64 x 56 x 56 windows of 9; 2048 means of 49 and a division; 1000 classes.
    assert totals["MaxPool"] == Work(0, 1_806_336)
    assert totals["AveragePool"] == Work(0, 102_400)
    assert totals["Softmax"] == Work(0, 5000)


def test_alexnet_layer_by_layer() -> None:
    graph, context = model("bvlc_alexnet").graph, context_of(model("bvlc_alexnet"))
    works = [count_node(node, context) for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert works == [
        Work(101_616_768, 279_936),  # 96 x 54 x 54 of 3 x 11 x 11
        Work(207_667_200, 173_056),  # 256 x 26 x 26 of 48 x 5 x 5, two groups
        Work(127_401_984, 55_296),  # 384 x 12 x 12 of 256 x 3 x 3
        Work(95_551_488, 55_296),  # 384 x 12 x 12 of 192 x 3 x 3, two groups
        Work(63_700_992, 36_864),  # 256 x 12 x 12 of 192 x 3 x 3, two groups
        Work(37_748_736, 4096),  # 9216 x 4096
        Work(16_777_216, 4096),  # 4096 x 4096
        Work(4_096_000, 1000),  # 4096 x 1000
    ]


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("vgg19", 19_632_062_464),  # the published 19.6 G: 19,508,428,800 of convolutions, 123,633,664 after
        ("densenet121", 2_834_161_664),
        ("squeezenet", 349_151_936),  # the published 0.35 G of version 1.1
    ],
)
def test_total_macs(name: str, macs: int) -> None:
    assert sum(work.macs for work in by_operator(name).values()) == macs


@pytest.mark.parametrize("name", ["inception_v1", "inception_v2", "shufflenet", "zfnet512"])
def test_every_node_is_counted(name: str) -> None:
    assert by_operator(name)["Conv"].macs > 0


def test_two_thousand_nodes_take_well_under_50_ms() -> None:
    if Coverage.current() is not None:
        pytest.skip("noting every line takes longer than counting")
    # Time of the processor, the best of five: other processes may slow a run down, none speeds it up.
    graph = model("densenet121").graph  # 1746 nodes
    seconds = []
    for _ in range(5):
        context = context_of(model("densenet121"))
        start = time.process_time()
        for node in graph.node:
            count_node(node, context)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.05 * 1746 / 2000
