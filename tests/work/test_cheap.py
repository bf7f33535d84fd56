"""Which values cost next to nothing to make again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dnnsplit_onnx import analyse
from dnnsplit_onnx.work.cheap import cheap_values

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def cheap(graph: str, **weights: np.ndarray) -> set[str]:
    model = onnx.parser.parse_model(f"{HEAD} {graph}")
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    found = cheap_values(analyse(model))
    for value, index in found.items():
        assert value in model.graph.node[index].output
    return set(found)


@pytest.mark.parametrize(
    ("dtype", "made"),
    [
        ("int64", {"a", "b", "y"}),
        ("int32", {"a", "b", "y"}),
        ("bool", {"a", "b", "y"}),
        ("float16", set()),
        ("uint8", set()),
    ],
)
def test_what_follows_from_whole_numbers(dtype: str, made: set[str]) -> None:
    graph = f"g ({dtype}[4] i) => (float[4] y) {{ a = Cast<to=1>(i)  b = Neg(a)  y = Exp(b) }}"
    assert cheap(graph) == made


def test_nothing_that_follows_from_reals() -> None:
    graph = """g (float[4] x, int64[4] i) => (float[4] y, int64[4] k) {
        a = Relu(x)
        b = Cast<to=1>(i)
        y = Add(a, b)
        j = Cast<to=7>(x)
        k = Add(i, j)
    }"""
    assert cheap(graph) == {"b"}


def test_shapes_and_sizes_of_anything() -> None:
    graph = """g (float[2, 3] x) => (int64[2] s, int64 n, float[2, 3] y) {
        a = Relu(x)
        s = Shape(a)
        n = Size(a)
        y = Reshape(a, s)
    }"""
    assert cheap(graph) == {"s", "n"}


def test_no_state_even_one_of_whole_numbers() -> None:
    graph = """g (int64[4] i, int64[4] past_0) => (int64[4] present_0, int64[4] y) {
        a = Neg(past_0)
        b = Neg(i)
        present_0 = Add(past_0, i)
        y = Add(a, b)
    }"""
    assert cheap(graph) == {"b"}
    anew = "g (int64[4] i, int64[4] past_0) => (int64[4] present_0, int64[4] y)"
    assert cheap(f"{anew} {{ present_0 = Neg(i)  y = Add(past_0, i) }}") == set()


@pytest.mark.parametrize(("dtype", "made"), [("int64", {"a", "b"}), ("float", set())])
def test_a_mask_that_stays_for_a_sequence_is_there_on_every_tier(dtype: str, made: set[str]) -> None:
    graph = f"""g (float[4] x, float[4] past_0, {dtype}[4] encoder_attention_mask)
        => (float[4] present_0, float[4] y) {{
        present_0 = Add(past_0, x)
        a = Cast<to=1>(encoder_attention_mask)
        b = Neg(a)
        y = Mul(b, past_0)
    }}"""
    assert cheap(graph) == made


def test_nothing_drawn_or_with_a_body() -> None:
    graph = """g (bool b, int64[4] i) => (float[4] y, float[4] z, float[4] w) {
        y = RandomNormal<shape=[4]>()
        a = Cast<to=1>(i)
        w = RandomNormalLike(a)
        z = If (b) <
            then_branch = one () => (float[4] t) { t = Identity(a) },
            else_branch = two () => (float[4] e) { e = Neg(a) }
        >
    }"""
    assert cheap(graph) == {"a"}


def test_no_operator_of_another_domain() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (int64[2, 3] i) => (float[2, 3] y) {
            a = Cast<to=1>(i)
            b = com.microsoft.QuickGelu(a)
            y = Neg(a)
        }"""
    )
    assert set(cheap_values(analyse(model))) == {"a", "y"}


@pytest.mark.parametrize(("size", "is_cheap"), [(4096, True), (4097, False)])
def test_large_tables_are_weights_and_no_constants(size: int, is_cheap: bool) -> None:
    graph = f"""g (int64[{size}] i) => (float[{size}] y) {{
        a = Cast<to=1>(i)
        y = Where(small, a, large)
    }}"""
    assert cheap(graph, small=np.ones(1, bool), large=np.ones(size, np.float32)) == (
        {"a", "y"} if is_cheap else {"a"}
    )


def test_where_tokens_become_vectors_a_model_begins() -> None:
    graph = """g (int64[5] tokens) => (float[5, 2] x, int64[5] kind, float[1] p) {
        x = Gather(vectors, tokens)
        kind = Gather(kinds, tokens)
        places = Cast<to=1>(tokens)
        p = Gather(places, first)
    }"""
    tables = {
        "vectors": np.zeros((7, 2), np.float32),
        "kinds": np.zeros(7, np.int64),
        "first": np.zeros(1, np.int64),
    }
    assert cheap(graph, **tables) == {"kind", "places", "p"}


def test_what_stands_for_distances_is_as_cheap_as_they_are() -> None:
    graph = """g (float[4, 2] x, int64[4] tokens) => (float[4, 2] far, float[4, 2] word, float[4, 2] both) {
        shape = Shape(x)
        length = Gather(shape, zero)
        places = Range(zero, length, one)
        far = Gather(vectors, places)
        word = Gather(vectors, tokens)
        mixed = Add(places, tokens)
        both = Gather(vectors, mixed)
    }"""
    tables = {"vectors": np.zeros((9, 2), np.float32), "zero": np.array(0), "one": np.array(1)}
    assert cheap(graph, **tables) == {"shape", "length", "places", "far", "mixed"}
