"""The recurrent nodes in float64 against the outputs that onnx publishes for its own test cases, layout 1 included."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.backend.test.case.node import collect_testcases

from onnx_gradcam.verify.float64 import in_float64, widened

OPERATORS = ("LSTM", "GRU", "RNN")


def cases() -> list[onnx.backend.test.case.test_case.TestCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for op_type in OPERATORS for case in collect_testcases(op_type)]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_published_outputs(case: onnx.backend.test.case.test_case.TestCase) -> None:
    node = ir.from_proto(case.model).graph[0]
    for inputs, outputs in case.data_sets:
        given = iter(inputs)
        arrays = [None if v is None else widened(np.asarray(next(given))) for v in node.inputs]
        found = in_float64(node, ())(arrays)
        kept = [array for array, value in zip(found, node.outputs, strict=False) if value.name]
        assert len(kept) == len(outputs)
        for a, b in zip(kept, outputs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
