"""What frameworks say of themselves, kept off the caller's screen: a conversion's own words are its report.

Errors lose nothing: all that a framework said of one is in its traceback.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# Loggers by the top of their names.
_TALKATIVE = ("absl", "keras", "onnx_ir", "onnxscript", "tensorflow", "tf2onnx", "torch", "transformers")


@contextmanager
def quiet() -> Iterator[None]:
    """Drops warnings and the frameworks' logs."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for logger in _loggers():
            stack.callback(_restore, logger, list(logger.handlers), logger.propagate)
            _restore(logger, [logging.NullHandler()], False)
        yield


def _loggers() -> list[logging.Logger]:
    """The frameworks' top loggers, where all below arrives, and those below with handlers of their own."""
    below = [
        logger
        for name, logger in list(logging.root.manager.loggerDict.items())
        if isinstance(logger, logging.Logger) and logger.handlers and name.partition(".")[0] in _TALKATIVE
    ]
    return [*map(logging.getLogger, _TALKATIVE), *below]


def _restore(logger: logging.Logger, handlers: list[logging.Handler], propagate: bool) -> None:
    logger.handlers[:] = handlers
    logger.propagate = propagate
