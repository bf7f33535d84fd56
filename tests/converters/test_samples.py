"""Inputs to compare on."""

from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx.converters.adapter import InputSpec
from dnnsplit_onnx.converters.samples import OPEN_SIZE, SAMPLES, sample_inputs

FLOAT, INT = np.dtype(np.float32), np.dtype(np.int64)


def sample(*spec, seed=0, **more):
    return sample_inputs([InputSpec("x", *spec, **more)], seed)["x"]


def test_open_dimensions_get_sizes_that_are_not_one():
    assert sample(FLOAT, ("batch", 3, "width")).shape == (SAMPLES, 3, OPEN_SIZE)
    assert sample(FLOAT, (1, 4)).shape == (1, 4)


def test_draws_depend_on_seed_and_name_alone():
    specs = [InputSpec(name, FLOAT, (2, 3)) for name in "ab"]
    both, one = sample_inputs(specs), sample_inputs(specs[1:])
    np.testing.assert_array_equal(both["b"], one["b"])
    assert not np.array_equal(both["a"], both["b"])
    assert not np.array_equal(both["b"], sample_inputs(specs, seed=1)["b"])


def test_samples_of_a_batch_differ():
    x = sample(FLOAT, ("batch", 64))
    assert not np.allclose(x[0], x[1])


def test_values_have_the_spread_that_the_model_expects():
    assert sample(FLOAT, ("batch", 1000), scale=127.0).std() == pytest.approx(127, rel=0.2)


def test_integers_stay_below_their_bound():
    drawn = sample(INT, ("batch", 500), below=5)
    assert drawn.dtype == INT
    assert set(drawn.ravel()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("shape", [("batch", 3), ("batch", 5), ("batch", 2)])
def test_an_example_is_repeated_to_the_size_that_is_wanted(shape):
    x = sample(INT, shape, example=np.array([[1, 2, 3]]))
    assert x.shape == (SAMPLES, shape[1])
    assert set(x.ravel()) <= {1, 2, 3}
    assert not np.array_equal(x[0], x[1])
