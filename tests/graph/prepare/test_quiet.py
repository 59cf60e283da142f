"""What shape inference forgives is not logged in the thread that prepares a model; others hear what they heard."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import builders
import onnx_ir as ir
import pytest

from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.graph.prepare.quiet import forgiving_inference

LOG = logging.getLogger("onnx_ir.passes.common.shape_inference")


def test_warnings_of_a_block_are_left_out_and_errors_are_not(caplog: pytest.LogCaptureFixture) -> None:
    with forgiving_inference():
        LOG.warning("forgiven")
        LOG.error("an error")
    LOG.warning("said")
    assert caplog.messages == ["an error", "said"]


def test_another_thread_hears_its_own_warnings(caplog: pytest.LogCaptureFixture) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def prepares() -> None:
        with forgiving_inference():
            inside.set()
            assert go_on.wait(10)
            LOG.warning("forgiven")
        LOG.warning("said by the one")

    thread = threading.Thread(target=prepares)
    thread.start()
    assert inside.wait(10)
    LOG.warning("said by the other")
    with forgiving_inference():  # begins and ends within the other's block
        LOG.warning("forgiven")
    go_on.set()
    thread.join()
    assert caplog.messages == ["said by the other", "said by the one"]


def test_models_prepared_in_several_threads_leave_the_logger_as_it_was() -> None:
    before = LOG.level, list(LOG.filters)
    model = ir.from_proto(builders.plain(opset=7, ir_version=4))
    with ThreadPoolExecutor(4) as pool:
        levels = set(pool.map(lambda _: prepare(model.clone()) and LOG.level, range(24)))
    assert levels == {before[0]}
    assert (LOG.level, LOG.filters) == before
