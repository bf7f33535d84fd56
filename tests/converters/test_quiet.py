"""Frameworks' warnings and logs, off the screen while a conversion runs, and back afterwards."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import pytest

from dnnsplit_onnx.converters.quiet import quiet
from tests.converters.support import needs


@pytest.fixture
def heard():
    """What a handler at the top of all loggers hears, and one of a framework's own."""
    records = []

    class Listener(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())

    own, top = Listener(), Listener()
    loggers = [(logging.getLogger(name), own) for name in ("torch", "torch.onnx")]
    loggers.append((logging.getLogger(), top))
    for logger, handler in loggers:
        logger.addHandler(handler)
    yield records
    for logger, handler in loggers:
        logger.removeHandler(handler)


def test_what_frameworks_say_is_dropped_and_what_others_say_is_not(heard):
    with quiet():
        logging.getLogger("torch.onnx.registration").error("no torchvision")
        logging.getLogger("mine").error("kept")
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
    assert heard == ["kept"]


def test_afterwards_all_is_as_it_was(heard):
    with pytest.raises(ValueError, match="fault"), quiet():
        raise ValueError("fault")
    logging.getLogger("torch.onnx.registration").error("heard again")
    assert "heard again" in heard
    with pytest.warns(UserWarning, match="again"):
        warnings.warn("again", stacklevel=1)


LIVE = """
import torch
from dnnsplit_onnx.converters import convert
convert((torch.nn.LSTM(4, 3, batch_first=True), torch.randn(1, 5, 4)), "m.onnx")
"""


@needs("pytorch", "cpu")
def test_the_conversion_of_a_live_model_leaves_the_screen_alone(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIVE], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
