"""What stands for the operators that onnxruntime-training has no right gradient for computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import run
from rule_cases import Case, feeds, forward_model
from rule_tables import tables

from onnx_gradcam.errors import UnsupportedGradient
from onnx_gradcam.graph.prepare.inference import infer
from onnx_gradcam.roads.forms import DOUBTS, FORMS, SUPPORTED, objection, on_path, write_out

F32 = np.dtype("float32")
CASES = [c for c in tables() if type(c) is Case and c.op_type in FORMS and c.ort]


def written_out(case: Case, dynamic: bool) -> ir.Model:
    model = ir.from_proto(forward_model(case, F32, dynamic))
    infer(model)
    write_out(model.graph, [f"x{i}" for i in case.wrt], "y0")
    return model


@pytest.mark.parametrize("op_type", sorted(FORMS))
def test_the_forms_compute_the_same(op_type: str) -> None:
    """In every case of the tables of the rules that is not refused, with static and with symbolic shapes."""
    compared = 0
    for case in [c for c in CASES if c.op_type == op_type]:
        for dynamic in (False, True):
            try:
                model = written_out(case, dynamic)
            except UnsupportedGradient:
                continue
            fed = feeds(case, F32)
            expected = run(forward_model(case, F32, dynamic), fed, ["y0"], optimized=False)["y0"]
            found = run(model, fed, ["y0"], optimized=False)["y0"]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=f"{case}, {dynamic=}")
            compared += 1
    assert compared > 0


def test_nothing_doubtful_is_left() -> None:
    """Between the named values and the score."""
    for case in CASES:
        try:
            model = written_out(case, False)
        except UnsupportedGradient:
            continue
        nodes = on_path(model.graph, [f"x{i}" for i in case.wrt], "y0")
        assert [node.op_type for node in nodes if objection(node)] == []


def pool(op_type: str, shape: str, attributes: str) -> ir.Model:
    text = f'<ir_version: 10, opset_import: ["" : 18]> g (float[{shape}] x) => (float[a, b, c, d] y)'
    model = ir.from_proto(onnx.parser.parse_model(f"{text} {{ y = {op_type} <{attributes}> (x) }}"))
    model.graph[0].name = "the_pool"
    return model


def test_a_pool_of_symbolic_sizes_is_refused_by_name() -> None:
    """There the process would end."""
    for shape in ("N, 3, H, 8", "N, C, 8, 8"):
        with pytest.raises(UnsupportedGradient, match="MaxPool: its gradient crashes") as caught:
            write_out(pool("MaxPool", shape, "kernel_shape = [2, 2]").graph, ["x"], "y")
        assert caught.value.where == "node 'the_pool'"
        assert 'engine="rules"' in caught.value.hint
    model = pool("MaxPool", "N, 3, 8, 8", "kernel_shape = [2, 2]")
    write_out(model.graph, ["x"], "y")
    assert [node.op_type for node in model.graph] == ["MaxPool"]


def test_an_average_pool_with_a_symbolic_batch_becomes_a_convolution() -> None:
    """Its gradient would be an empty array."""
    model = pool("AveragePool", "N, 3, 8, 8", "kernel_shape = [2, 2]")
    write_out(model.graph, ["x"], "y")
    assert [node.op_type for node in model.graph] == ["Conv", "Mul"]
    fixed = pool("AveragePool", "2, 3, 8, 8", "kernel_shape = [2, 2]")
    write_out(fixed.graph, ["x"], "y")
    assert [node.op_type for node in fixed.graph] == ["AveragePool"]


def test_what_lies_off_the_path_stays() -> None:
    text = '<ir_version: 10, opset_import: ["" : 18]> g (float[2] x) => (float[2] y, float[2] z)'
    model = ir.from_proto(onnx.parser.parse_model(f"{text} {{ y = Relu(x) \n z = HardSwish(y) }}"))
    write_out(model.graph, ["x"], "y")
    assert [node.op_type for node in model.graph] == ["Relu", "HardSwish"]


def test_doubts_are_about_what_is_otherwise_supported() -> None:
    assert SUPPORTED.issuperset(DOUBTS)
