"""Keep what shape inference logs of forgiven mistakes from the user, without touching the levels of any logger."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_IS_QUIET: ContextVar[bool] = ContextVar("onnx_gradcam_is_quiet", default=False)


def _passes(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or not _IS_QUIET.get()


# Installed once. A context variable is one thread's (or one task's) own: other users of onnx_ir hear what they heard.
logging.getLogger("onnx_ir.passes.common.shape_inference").addFilter(_passes)


@contextmanager
def forgiving_inference() -> Iterator[None]:
    """Leave out the warnings that onnx_ir's shape inference logs in this thread, for the time of a block."""
    token = _IS_QUIET.set(True)
    try:
        yield
    finally:
        _IS_QUIET.reset(token)
