from __future__ import annotations

import pytest
from onnx import TensorProto

from tests.work.flops.counting import MS, elementwise

X = (2, 3, 4)  # 24 elements


@pytest.mark.parametrize("domain", ["", MS])
def test_linear(domain: str) -> None:
    assert elementwise("QuantizeLinear", [X, ()], domain=domain) == 72
    assert elementwise("QuantizeLinear", [X, (), ()], domain=domain) == 96
    assert elementwise("DequantizeLinear", [X, ()], domain=domain) == 24
    assert elementwise("DequantizeLinear", [X, (), ()], domain=domain) == 48


def test_dynamic() -> None:
    assert elementwise("DynamicQuantizeLinear", [X], [X, (), ()]) == 144


@pytest.mark.parametrize(
    ("op_type", "operations"), [("QLinearSigmoid", 10), ("QLinearLeakyRelu", 8), ("QLinearSoftmax", 11)]
)
def test_unary(op_type: str, operations: int) -> None:
    assert elementwise(op_type, [X, (), (), (), ()], domain=MS) == 24 * operations
    assert elementwise(op_type, [X, (), None, ()], domain=MS) == 24 * (operations - 2)


@pytest.mark.parametrize("op_type", ["QLinearAdd", "QLinearMul"])
def test_binary_dequantizes_each_operand_at_its_own_size(op_type: str) -> None:
    # 24 + 4 elements dequantized in 2, 24 results of 1 + 4
    assert elementwise(op_type, [X, (), (), (4,), (), (), (), ()], domain=MS) == 56 + 120
    # without the zero point of the first, of the second operand, and of the result
    assert elementwise(op_type, [X, (), None, (4,), (), (), (), ()], domain=MS) == 32 + 120
    assert elementwise(op_type, [X, (), (), (4,), (), None, (), ()], domain=MS) == 52 + 120
    assert elementwise(op_type, [X, (), (), (4,), (), (), ()], domain=MS) == 56 + 96


def test_without_zero_points() -> None:
    assert elementwise("QLinearReduceMean", [X, (), None, ()], [(2, 3)], domain=MS) == 48 + 24
    assert elementwise("QLinearWhere", [(2, 3, 4), (1,), (), None, (4,), (), (), ()], domain=MS) == 1 + 8 + 96
    assert elementwise("QLinearWhere", [(2, 3, 4), (1,), (), (), (4,), (), None, ()], domain=MS) == 2 + 4 + 96
    assert elementwise("QLinearConcat", [(), None, X, (), (), X, (), ()], domain=MS) == 240


def test_others() -> None:
    assert elementwise("QLinearWhere", [(4,), X, (), (), (4,), (), (), (), ()], domain=MS) == 56 + 120
    assert elementwise("QLinearConcat", [(), (), X, (), (), X, (), ()], domain=MS) == 288
    # 24 in of 2 + 1, 6 out of 1 + 4
    assert elementwise("QLinearReduceMean", [X, (), (), (), ()], [(2, 3)], domain=MS) == 102
    assert elementwise("MulInteger", [X, (), (4,), ()], domain=MS) == 24 + 4 + 24
    assert elementwise("MulInteger", [X, None, (4,)], domain=MS) == 24


def test_pools() -> None:
    image, pooled = (1, 3, 8, 8), (1, 3, 4, 4)
    scales = [(), (), (), ()]
    # 192 in of 2, 48 out of 9 + 1 + 4
    options = {"domain": MS, "kernel_shape": [3, 3]}
    assert elementwise("QLinearAveragePool", [image, *scales], [pooled], **options) == 384 + 672
    # 192 in of 3, 3 out of 5
    assert elementwise("QLinearGlobalAveragePool", [image, *scales], domain=MS) == 591
    no_zero_points = [image, (), None, ()]
    assert elementwise("QLinearAveragePool", no_zero_points, [pooled], **options) == 192 + 48 * 13
    assert elementwise("QLinearGlobalAveragePool", no_zero_points, domain=MS) == 384 + 3 * 4
    last = [(1, 8, 8, 3), *scales]
    assert elementwise("QLinearGlobalAveragePool", last, domain=MS, channels_last=1) == 591


def test_gather_block_quantized() -> None:
    inputs = [(100, 64), (2, 3), (100, 2)]
    options = {"domain": MS, "outputs": [(2, 3, 64)]}
    assert elementwise("GatherBlockQuantized", inputs, dtype=TensorProto.UINT4, **options) == 768
    for name in ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT4E2M1"):
        dtype = TensorProto.DataType.Value(name)
        assert elementwise("GatherBlockQuantized", inputs, dtype=dtype, **options) == 384
