"""Keras's TimeDistributed while a model is exported, for any number of steps.

Keras runs the inner layer step by step: as often as there are steps on the torch backend,
and by TensorFlow's `vectorized_map`, which tf2onnx does not convert right. A layer that is
given all steps as one batch computes the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


@contextmanager
def steps_as_batch() -> Iterator[None]:
    """Runs what a TimeDistributed layer holds once, on the steps of all samples as one batch."""
    from keras import ops
    from keras.layers import TimeDistributed

    def folded(values: Any) -> Any:
        shape = ops.shape(values)
        return ops.reshape(values, (shape[0] * shape[1], *shape[2:]))

    def call(self: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        del training  # it is inference
        takes_mask = mask is not None and self.layer._call_has_mask_arg
        options = {"mask": folded(mask)} if takes_mask else {}
        outputs = self.layer(folded(inputs), training=False, **options)
        return ops.reshape(outputs, (*ops.shape(inputs)[:2], *ops.shape(outputs)[1:]))

    with mock.patch.object(TimeDistributed, "call", call):
        yield
