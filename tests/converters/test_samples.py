"""Inputs to compare on."""

from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx.converters.adapter import InputSpec
from dnnsplit_onnx.converters.samples import bind, open_names, refuse_outside, sample_inputs, size_of
from dnnsplit_onnx.errors import InputError

FLOAT, INT = np.dtype(np.float32), np.dtype(np.int64)


SIZES = {"batch": 2, "width": 6}


def sample(*spec, seed=0, **more):
    return sample_inputs([InputSpec("x", *spec, **more)], SIZES, seed)["x"]


def test_open_dimensions_get_the_sizes_that_are_asked_for():
    assert sample(FLOAT, ("batch", 3, "width")).shape == (2, 3, 6)
    assert sample(FLOAT, (1, 4)).shape == (1, 4)
    assert sample(FLOAT, ("2 * width + 1", "batch")).shape == (13, 2)


@pytest.mark.parametrize("dim", ["width ** 9", "f(width)", "width.real", "'a' * width"])
def test_a_size_is_a_number_or_a_sum_or_product(dim):
    with pytest.raises((ValueError, KeyError)):
        size_of(dim, SIZES)


def test_sizes_that_are_asked_for_are_of_dimensions_that_there_are():
    specs = [InputSpec("x", FLOAT, ("batch", "past + new")), InputSpec("y", FLOAT, ("past", 3))]
    assert open_names(specs) == ["batch", "past", "new"]
    assert [spec.shape for spec in bind(specs, {"past": 4})] == [("batch", "4 + new"), (4, 3)]
    assert bind(specs, {"past": 4, "new": 2})[0].shape == ("batch", 6)
    with pytest.raises(InputError, match="no open dimension `bach`") as caught:
        bind(specs, {"bach": 1})
    assert "`batch`, `past`, `new`" in caught.value.hint


def test_sizes_that_are_asked_for_are_among_those_that_the_model_takes():
    limits = {"batch": (4, 8)}
    refuse_outside({"batch": 4, "width": 1}, limits)
    refuse_outside({"batch": 8}, limits)
    with pytest.raises(InputError, match="`batch` cannot be 3: the model takes at least 4") as caught:
        refuse_outside({"batch": 3}, limits)
    assert "--bind batch=4" in caught.value.hint
    with pytest.raises(InputError, match="at most 8"):
        refuse_outside({"batch": 9}, limits)


def test_draws_depend_on_seed_and_name_alone():
    specs = [InputSpec(name, FLOAT, (2, 3)) for name in "ab"]
    both, one = sample_inputs(specs, {}), sample_inputs(specs[1:], {})
    np.testing.assert_array_equal(both["b"], one["b"])
    assert not np.array_equal(both["a"], both["b"])
    assert not np.array_equal(both["b"], sample_inputs(specs, {}, seed=1)["b"])


def test_samples_of_a_batch_differ():
    x = sample(FLOAT, ("batch", 64))
    assert not np.allclose(x[0], x[1])


def test_values_have_the_spread_that_the_model_expects():
    drawn = sample(FLOAT, ("batch", 100_000), scale=127.0)
    # The second sample is a tenth wider, and a tenth aside. 1% is four standard errors of such a spread.
    assert drawn.std(axis=1) == pytest.approx([127, 1.1 * 127], rel=0.01)
    assert drawn.mean(axis=1) == pytest.approx([0, 0.1 * 127], abs=0.02 * 127)


def test_integers_stay_below_their_bound():
    drawn = sample(INT, ("batch", 500), below=5)
    assert drawn.dtype == INT
    assert set(drawn.ravel()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("shape", [("batch", 3), ("batch", 5), ("batch", 2)])
def test_an_example_is_repeated_to_the_size_that_is_wanted(shape):
    x = sample(INT, shape, example=np.array([[1, 2, 3]]))
    assert x.shape == (2, shape[1])
    assert set(x.ravel()) <= {1, 2, 3}
    assert not np.array_equal(x[0], x[1])


def test_the_authors_floats_are_taken_where_they_say_something():
    logs = np.log(np.array([[0.2, 0.3, 0.5]], np.float32))
    assert (sample(FLOAT, ("batch", 3), example=logs) < 0).all()
    assert (sample(FLOAT, ("batch", 3), example=np.zeros((1, 3), np.float32)) != 0).all()
    assert sample(FLOAT, (), example=np.float32(7)) == 7


def test_ones_of_a_mask_stay():
    assert (sample(INT, ("batch", "width"), example=np.ones((1, 3), np.int64)) == 1).all()
