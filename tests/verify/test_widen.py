"""verify on float16 models: rules and gradient in float32, then 16 bits against 32; planted errors are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxruntime.transformers.float16 import convert_float_to_float16
from planted import PLANTED, SMALL, failing, planted, status

from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.verify import verify
from onnx_gradcam.verify.widen import in_float32


def halved(keep_io_types: bool = False) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(SMALL)
    return convert_float_to_float16(copy, keep_io_types=keep_io_types)


@pytest.mark.parametrize("keep_io_types", [False, True])
def test_the_right_rules_pass(keep_io_types: bool) -> None:
    report = verify(halved(keep_io_types))
    assert report.ok, str(report)
    found = status(report)
    assert {"gradient at 'relu3', in float32", "gradient at 'relu3', in 16 bits against float32"} <= found.keys()
    assert max(n.error for n in report.nodes if n.error is not None) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_caught_and_its_node_named(name: str) -> None:
    key, wrong, expected, (low, high), _ = PLANTED[name]
    report = verify(halved(), table=planted(*key, wrong))
    assert not report.ok
    assert failing(report) == expected
    errors = [n.error for n in report.nodes if n.status == "fail" and n.error is not None]
    assert low < max(errors) < high


def only_in_16_bits(op: Builder, x_bar: Value, *_: Value, **__: Any) -> Value:
    """An error of 1 % where the graph is in float16, none in float32."""
    return op.Mul(x_bar, op.const(1.01, like=x_bar)) if x_bar.dtype == ir.DataType.FLOAT16 else x_bar


def test_what_a_rule_does_wrong_in_16_bits_only_is_caught() -> None:
    report = verify(halved(), table=planted("MaxPool", 0, only_in_16_bits))
    assert failing(report) == {("node_pool", 0)}
    (node,) = (n for n in report.nodes if n.status == "fail")
    assert node.error == pytest.approx(0.01, rel=0.1)
    assert "16 bits" in node.message


def test_the_float32_twin_has_the_same_numbers_and_leaves_the_model_as_it_is() -> None:
    prepared = prepare(ir.from_proto(halved()))
    twin = in_float32(prepared)
    for model, kind in ((prepared, ir.DataType.FLOAT16), (twin, ir.DataType.FLOAT)):
        weights = {v.name: v for v in model.graph.initializers.values() if len(v.shape or ()) == 4}
        assert weights
        assert {v.dtype for v in weights.values()} == {kind}
    for name, value in prepared.graph.initializers.items():
        other = twin.graph.initializers[name]
        assert value.const_value is not None
        assert other.const_value is not None
        np.testing.assert_array_equal(other.const_value.numpy(), value.const_value.numpy())
