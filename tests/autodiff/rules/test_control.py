"""Models with an If whose condition is known at run time only: what its bodies read from outside is differentiated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import run
from onnx.reference import ReferenceEvaluator
from safe_operators import lint

from onnx_gradcam.autodiff.registry import RULES, vjp
from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare


class Branching(NamedTuple):
    """``text``: a graph with inputs x (2, 3), z (2, 3), c (bool) and outputs y…; "F" stands for the dtype."""

    id: str
    text: str
    op_type: str = "If"
    wrt: Sequence[int] = (1,)
    of: Sequence[str] = ("x",)

    def model(self, dtype: str) -> ir.Model:
        text = f'<ir_version: 10, opset_import: ["" : 18]> {self.text.replace("F[", dtype + "[")}'
        return prepare(load(onnx.parser.parse_model(text)).model)

    def __str__(self) -> str:
        return self.id


HEAD = "g (F[2, 3] x, F[2, 3] z, bool c) => (F[a, b] y)"
CASES = [
    Branching(
        "both-branches",
        HEAD + """{ h = Exp(x)
        t = If (c) <then_branch = yes () => (F[a, b] t1) { s = Sigmoid(h) t1 = Mul(s, h) },
                    else_branch = no () => (F[a, b] e1) { s = Tanh(h) e1 = Neg(s) }>
        y = Mul(t, h) }""",
    ),
    Branching(
        "one-branch",
        HEAD + """{ h = Exp(x)
        y = If (c) <then_branch = yes () => (F[a, b] t1) { t1 = Mul(h, z) },
                    else_branch = no () => (F[a, b] e1) { e1 = Sigmoid(z) }> }""",
        of=("x", "z"),
    ),
    Branching(
        "several-values-and-outputs",
        "g (F[2, 3] x, F[2, 3] z, bool c) => (F[a, b] y, F[d, e] w)" + """{ h = Exp(x)
        y, w = If (c) <then_branch = yes () => (F[a, b] t1, F[d, e] t2) {
                           p = Mul(h, z) t1 = Add(p, x) t2 = ReduceSum(p) },
                       else_branch = no () => (F[a, b] e1, F[d, e] e2) {
                           e1 = Sigmoid(z) k = Constant<value_ints = [1]>() e2 = ReduceMean(h) }> }""",
        of=("x", "z"),
    ),
    Branching(
        "shapes-that-differ",
        HEAD + """{ h = Exp(x)
        t = If (c) <then_branch = yes () => (F[a, b] t1) { k = Constant<value_ints = [3, 2]>() t1 = Reshape(h, k) },
                    else_branch = no () => (F[a, b] e1) { k = Constant<value_ints = [1, 6]>() e1 = Reshape(h, k) }>
        y = Sigmoid(t) }""",
    ),
    Branching(
        "nested",
        HEAD + """{ h = Exp(x)
        n = Not(c)
        y = If (c) <then_branch = yes () => (F[a, b] t1) {
                        q = Sigmoid(h)
                        t1 = If (n) <then_branch = yes2 () => (F[a, b] t2) { t2 = Mul(q, z) },
                                     else_branch = no2 () => (F[a, b] e2) { e2 = Mul(q, h) }> },
                    else_branch = no () => (F[a, b] e1) { e1 = Mul(h, h) }> }""",
        of=("x", "z"),
    ),
    Branching(
        "passed-on",
        HEAD + """{ h = Exp(x)
        t = If (c) <then_branch = yes () => (F[a, b] t1) { t1 = Identity(h) },
                    else_branch = no () => (F[a, b] e1) { e1 = Mul(h, h) }>
        y = Sigmoid(t) }""",
    ),
]  # fmt: skip


def with_gradients(case: Branching, dtype: str) -> ir.Model:
    model = case.model(dtype)
    graph = model.graph
    nodes, op = list(graph), Builder(graph)
    values = {v.name: v for v in graph.inputs}
    seeds = {}
    for k, y in enumerate(list(graph.outputs)):
        seeds[y] = ir.val(f"g{k}", dtype=y.dtype, shape=y.shape)
        graph.inputs.append(seeds[y])
    for name, gradient in zip(case.of, pull_back(op, nodes, seeds, [values[n] for n in case.of]), strict=True):
        out = op.Identity(gradient)
        out.name, out.type = f"grad_{name}", values[name].type
        graph.outputs.append(out)
    lint(model)
    return model


@pytest.mark.parametrize("condition", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Branching, condition: bool) -> None:
    """Finite differences in float64 on the reference evaluator, and the same from onnxruntime in float32."""
    rng = np.random.default_rng(0)
    forward = ReferenceEvaluator(ir.to_proto(case.model("double")))
    fed: dict[str, Any] = {"x": rng.standard_normal((2, 3)), "z": rng.standard_normal((2, 3)), "c": np.array(condition)}
    ys = forward.run(None, fed)
    gs = {f"g{k}": rng.standard_normal(np.shape(y)) for k, y in enumerate(ys)}
    names = [f"grad_{name}" for name in case.of]
    found = ReferenceEvaluator(ir.to_proto(with_gradients(case, "double"))).run(names, fed | gs)
    for name, gradient in zip(case.of, found, strict=True):
        assert gradient.shape == (2, 3)
        for _ in range(3):
            v = rng.standard_normal((2, 3))
            ends = [forward.run(None, fed | {name: fed[name] + h * v}) for h in (1e-6, -1e-6)]
            numeric = sum(np.sum(gs[f"g{k}"] * (a - b)) for k, (a, b) in enumerate(zip(*ends, strict=True))) / 2e-6
            np.testing.assert_allclose(np.sum(gradient * v), numeric, rtol=1e-6, atol=1e-8)
    narrow = {k: v if v.dtype == bool else v.astype(np.float32) for k, v in (fed | gs).items()}
    for optimized in (False, True):
        in_float32 = run(with_gradients(case, "float"), narrow, names, optimized)
        for a, b in zip(in_float32.values(), found, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_other_rules_hold_in_the_branches_too() -> None:
    """Guided backpropagation gates the rectifiers of a branch as those outside it."""
    text = (
        HEAD
        + """{ y = If (c) <then_branch = yes () => (F[a, b] t1) { t1 = Relu(x) },
                                  else_branch = no () => (F[a, b] e1) { e1 = Relu(x) }> }"""
    )
    table = dict(RULES)
    del table["Relu", 0]

    @vjp("Relu", wrt=0, table=table)
    def deconvolution(op: Builder, g: Value, y: Value, x: Value) -> Value:
        return op.Relu(g)

    graph = (model := Branching("", text).model("float")).graph
    (y,), nodes = graph.outputs, list(graph)
    g = ir.val("g", dtype=y.dtype, shape=y.shape)
    (gradient,) = pull_back(Builder(graph), nodes, {y: g}, [graph.inputs[0]], table)
    graph.inputs.append(g)
    graph.outputs.append(gradient)
    fed = {"x": np.full((2, 3), -1.0), "c": np.array(True), "g": np.array([[1.0, -2, 3], [-4, 5, -6]])}
    (found,) = ReferenceEvaluator(ir.to_proto(model)).run([gradient.name], fed)
    np.testing.assert_array_equal(found, [[1, 0, 3], [0, 5, 0]])
