from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import one_node, run

from onnx_gradcam.graph.prepare.pools import make_explicit, same_pads, window_count

FORMS = [
    {"pads": [before, after], "ceil_mode": ceil}
    for before, after in itertools.product(range(2), range(3))
    for ceil in (0, 1)
] + [{"auto_pad": pad, "ceil_mode": ceil} for pad in ("SAME_UPPER", "SAME_LOWER", "VALID") for ceil in (0, 1)]


def pooled(op_type: str, size: int, form: dict[str, Any]) -> tuple[onnx.ModelProto, np.ndarray]:
    """The pool of 1, 2, … as a model with the shape that onnx infers, and what onnxruntime makes of it."""
    x = np.arange(1, size + 1, dtype=np.float32).reshape(1, 1, -1)
    model = one_node(op_type, [x], form, opset=19)
    return onnx.shape_inference.infer_shapes(model), run(model, {"x0": x})["y0"]


@pytest.mark.slow
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool", "LpPool"])
def test_every_form_on_one_axis(op_type: str, dilation: int) -> None:
    """The count is onnxruntime's; what onnx infers otherwise is written so that both agree, with the same values."""
    wrong = 0
    for size, kernel, stride, given in itertools.product(range(5, 10), (3, 4), (1, 2, 3), FORMS):
        if max(given.get("pads", [0])) >= kernel or (kernel - 1) * dilation >= size:
            continue
        form = {"kernel_shape": [kernel], "strides": [stride], "dilations": [dilation], **given}
        model, y = pooled(op_type, size, form)
        pads = tuple(given.get("pads", [0, 0]))
        if given.get("auto_pad", "VALID") != "VALID":
            pads = same_pads(size, kernel, stride, given["auto_pad"])
        reach = dilation * (kernel - 1)
        assert y.size == window_count(size, pads, reach, stride, rounds_up=bool(given["ceil_mode"])), form
        inferred = model.graph.output[0].type.tensor_type.shape.dim[2].dim_value
        node = ir.from_proto(model).graph[0]
        assert make_explicit(node) == (inferred != y.size), form
        if inferred != y.size:
            wrong += 1
            attributes = {a.name: a.value for a in node.attributes.values()}
            again, same = pooled(op_type, size, attributes)
            assert again.graph.output[0].type.tensor_type.shape.dim[2].dim_value == y.size, attributes
            np.testing.assert_allclose(same, y, rtol=1e-6, err_msg=str(form))
    assert wrong >= 20


def test_a_pool_that_cannot_be_said_otherwise_stays() -> None:
    """Rows: a window in the padding; columns: one beyond it; and padding counts."""
    form = {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1, "count_include_pad": 1}
    model = one_node("AveragePool", [np.zeros((1, 1, 5, 6), np.float32)], form, opset=19)
    kept = ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph[0]
    before = dict(kept.attributes)
    assert not make_explicit(kept)
    assert dict(kept.attributes) == before
