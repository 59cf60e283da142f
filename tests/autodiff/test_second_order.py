"""What the rules write is differentiated by the rules: Hessians against finite differences of gradients."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from nets import run
from reference import evaluator
from rule_cases import Case, feeds, forward_model, typed, with_gradients
from rule_tables import tables

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.flow import downstream

LINEAR_IN_PIECES = set(
    "Abs AveragePool BatchNormalization Clip Concat Conv ConvTranspose Expand Flatten Gather GlobalAveragePool "
    "GlobalMaxPool HardSigmoid LeakyRelu Max MaxPool Min Neg Pad ReduceL1 ReduceMax ReduceMean ReduceMin ReduceSum "
    "Relu Reshape Resize Slice Split Sub Sum ThresholdedRelu TopK Transpose Where".split()
)
# What alone leads to no float, or what the reference evaluator cannot run.
LEFT_OUT = set("QuantizeLinear DequantizeLinear DynamicQuantizeLinear".split())
LEFT_OUT |= set("MeanVarianceNormalization GridSample MaxRoiPool".split())


def first_cases() -> dict[str, Case]:
    """One for each operator, with inputs that are differentiated."""
    found: dict[str, Case] = {}
    for case in tables():
        if isinstance(case, Case) and case.op_type not in LEFT_OUT and case.ort:
            found.setdefault(case.op_type, case)
    return found


CASES = first_cases()


def twice(case: Case, dtype: str) -> tuple[ir.Model, list[int]]:
    """The model of a case with gradients, inputs v0, … and outputs hessian0, …, ∂⟨v, grad⟩/∂x, where that is not 0."""
    model = with_gradients(case, np.dtype(dtype), False)
    graph = model.graph
    values = ir.convenience.create_value_mapping(graph)
    op, nodes, bent = Builder(graph), list(graph), []
    for i in case.wrt:
        gradient, x = values[f"grad{i}"], values[f"x{i}"]
        if gradient not in downstream(nodes, [x]):
            continue
        v = ir.val(f"v{i}", dtype=gradient.dtype, shape=gradient.shape)
        graph.inputs.append(v)
        out = op.Identity(pull_back(op, nodes, {gradient: v}, [x])[0])
        out.name, out.dtype, out.shape = f"hessian{i}", gradient.dtype, gradient.shape
        graph.outputs.append(out)
        bent.append(i)
    return model, bent


@pytest.mark.parametrize("op_type", sorted(CASES))
def test_against_differences_of_the_gradient(op_type: str) -> None:
    """In float64; and in float32 on ONNX Runtime, where masks are written as products that are clipped."""
    case, rng, h = CASES[op_type], np.random.default_rng(0), 1e-5
    model, bent = twice(case, "float64")
    fed = feeds(case, np.dtype("float64"))
    ys = evaluator(forward_model(case, np.dtype("float64"), False)).run(None, fed)
    fed |= {f"g{i}": rng.standard_normal(y.shape) for i, y in enumerate(ys) if y.dtype.kind == "f"}
    fed |= {f"v{i}": rng.standard_normal(np.shape(case.inputs[i])) for i in bent}
    reference = evaluator(model)
    for i in case.wrt:
        u = rng.standard_normal(np.shape(case.inputs[i]))
        ahead, behind = (
            np.asarray(reference.run([f"grad{i}"], fed | {f"x{i}": fed[f"x{i}"] + sign * h * u})[0]) for sign in (1, -1)
        )
        if i not in bent:
            np.testing.assert_allclose(ahead, behind, atol=1e-12)
            continue
        (hessian,) = reference.run([f"hessian{i}"], fed)
        numeric = float(np.sum(fed[f"v{i}"] * (ahead - behind))) / (2 * h)
        scale = max(abs(numeric), float(np.linalg.norm(hessian)), 1e-3)
        assert abs(numeric - float(np.sum(hessian * u))) <= 1e-5 * scale
        narrow, _ = twice(case, "float32")
        given = {k: v.astype(np.float32) if v.dtype == float else v for k, v in fed.items()}
        given |= typed(narrow, {k: v for k, v in fed.items() if k.startswith("g")})
        found = run(narrow, given, [f"hessian{i}"])[f"hessian{i}"]
        np.testing.assert_allclose(found, hessian, atol=1e-4 * max(np.abs(hessian).max(), 1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_linear_in_pieces_has_no_second_derivative(dtype: str) -> None:
    """Its gradient is known not to depend on its input: no path leads back, whatever masks are made of."""
    assert set(CASES) >= LINEAR_IN_PIECES
    assert [name for name in sorted(LINEAR_IN_PIECES) if twice(CASES[name], dtype)[1]] == []
