"""One check for every lowering: ONNX Runtime's own kernel, finite differences in float64, static and dynamic shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from nets import one_node, run
from reference import evaluator

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.lowering.registry import MICROSOFT
from onnx_gradcam.graph.lowering.table import lower

DOUBLE, SINGLE = np.dtype("float64"), np.dtype("float32")


@dataclass(frozen=True)
class Case:
    """One operator with concrete inputs (float64 or integers; None for one that is left out).

    ``wrt``: the inputs to differentiate. ``constants``: positions of initializers. ``outputs``: how many it has, or
    their names. ``expected``: what it computes, in NumPy, where the CPU provider of ONNX Runtime has no kernel.
    ``fixed``: dynamic shapes are not tried.
    """

    op_type: str
    inputs: Sequence[np.ndarray | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    wrt: Sequence[int] = (0,)
    constants: Sequence[int] = ()
    outputs: Sequence[str] = ("y",)
    domain: str = MICROSOFT
    opset: int = 18
    id: str = ""
    expected: Callable[..., Any] | None = None
    fixed: bool = False
    tolerance: float = 1e-5

    def __str__(self) -> str:
        return f"{self.op_type}-{self.id}" if self.id else self.op_type


def graph_of(case: Case, dtype: np.dtype[Any], dynamic: bool = False) -> tuple[ir.Model, ir.Node]:
    """The operator alone, and its node; nothing is known of its outputs."""
    inputs = [None if x is None else typed_array(x, dtype) for x in case.inputs]

    def dims(i: int, array: np.ndarray) -> list[int | str]:
        return [f"x{i}_{k}" if dynamic and k < array.ndim - 1 else d for k, d in enumerate(array.shape)]

    more = {"constants": case.constants, "outputs": case.outputs, "opset": case.opset, "dims": dims}
    model = ir.from_proto(one_node(case.op_type, inputs, case.attributes, domain=case.domain, **more))
    model.graph.outputs.clear()
    model.graph.opset_imports.setdefault(MICROSOFT, 1)
    return model, model.graph.node("the_node")


def lowered(case: Case, dtype: np.dtype[Any], dynamic: bool = False) -> tuple[ir.Model, Sequence[Value | None]]:
    """The standard operators alone, and what stands for the outputs."""
    model, node = graph_of(case, dtype, dynamic)
    op = Builder(model.graph, "standard")
    made = lower(op, node)
    assert made is not None
    model.graph.remove(node, safe=False)
    model.graph.outputs.extend(v for v in dict.fromkeys(made) if v is not None)
    return model, made


def check_lowering(case: Case, *, seed: int = 0) -> None:
    """Assert that the standard operators compute what the operator does, and that its gradient is right."""
    rng = np.random.default_rng(seed)
    deployed = _deployed_outputs(case)
    for dynamic in (False,) if case.fixed else (False, True):
        _check_forward(case, dynamic, deployed)
    exact = _exact_gradients(case, rng, deployed)
    for dynamic in (False,) if case.fixed else (False, True):
        _check_gradients(case, dynamic, *exact)


def _deployed_outputs(case: Case) -> list[np.ndarray]:
    if case.expected is not None:
        found = case.expected(*case.inputs)
        return list(found) if isinstance(found, tuple) else [found]
    model, node = graph_of(case, SINGLE)
    for value in node.outputs:
        if value.name:
            model.graph.outputs.append(value)
    return run_ort(model, feeds(case, SINGLE), optimized=False)


def _check_forward(case: Case, dynamic: bool, deployed: Sequence[np.ndarray]) -> None:
    model, made = lowered(case, SINGLE, dynamic)
    named = [v for v, name in zip(made, case.outputs, strict=True) if name]
    found = dict(zip(dict.fromkeys(v for v in made if v is not None), run_ort(model, feeds(case, SINGLE)), strict=True))
    for value, expected in zip(named, deployed, strict=True):
        if value is None:
            continue
        array = found[value]
        assert array.shape == np.shape(expected)
        assert value.shape is not None
        assert len(value.shape) == array.ndim
        assert all(a == b for a, b in zip(value.shape, array.shape, strict=True) if isinstance(a, int))
        _close(case, array, expected, case.tolerance)


def _exact_gradients(
    case: Case, rng: np.random.Generator, deployed: Sequence[np.ndarray]
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """The cotangent of the first output and the gradients in float64, compared with finite differences."""
    g = rng.standard_normal(np.shape(deployed[0]))
    model, made = lowered(case, DOUBLE)
    forward = evaluator(model)
    fed = feeds(case, DOUBLE)
    assert made[0] is not None
    model = _with_gradients(case, model, made[0])
    found = evaluator(model).run([f"grad{i}" for i in case.wrt], fed | {"g": g})
    gradients = dict(zip(case.wrt, (np.asarray(a) for a in found), strict=True))
    for i, gradient in gradients.items():
        assert gradient.shape == np.shape(case.inputs[i])
        for _ in range(3):
            v = rng.standard_normal(gradient.shape)
            ends = [forward.run(None, fed | {f"x{i}": fed[f"x{i}"] + h * v})[0] for h in (1e-6, -1e-6)]
            numeric = float(np.sum(g * (ends[0] - ends[1]))) / 2e-6
            scale = max(abs(numeric), float(np.linalg.norm(gradient)), 1e-3)
            assert abs(numeric - float(np.sum(gradient * v))) <= 1e-6 * scale, (str(case), i)
    return g, gradients


def _check_gradients(case: Case, dynamic: bool, g: np.ndarray, exact: dict[int, np.ndarray]) -> None:
    """Of the operator as deployed (of its standard form, where there is no kernel), on ONNX Runtime."""
    if case.expected is None:
        model, node = graph_of(case, SINGLE, dynamic)
        ys = lowered(case, SINGLE, dynamic)[1]
        for y, like in zip(node.outputs, ys, strict=True):
            if like is not None:
                y.type, y.shape = like.type, like.shape
        output = node.outputs[0]
    else:
        model, made = lowered(case, SINGLE, dynamic)
        assert made[0] is not None
        output = made[0]
    model = _with_gradients(case, model, output)
    model.graph.outputs[:] = [v for v in model.graph.outputs if (v.name or "").startswith("grad")]
    fed = feeds(case, SINGLE) | {"g": g.astype(SINGLE)}
    for i, array in zip(case.wrt, run_ort(model, fed), strict=True):
        _close(case, array, exact[i], 2 * case.tolerance)


def _with_gradients(case: Case, model: ir.Model, output: Value) -> ir.Model:
    """The model plus the input g, the cotangent of ``output``, and the outputs grad0, … for the inputs of ``wrt``."""
    graph = model.graph
    seed = ir.val("g", dtype=output.dtype, shape=output.shape)
    graph.inputs.append(seed)
    values = ir.convenience.create_value_mapping(graph)
    op = Builder(graph)
    for i, found in zip(
        case.wrt, pull_back(op, list(graph), {output: seed}, [values[f"x{i}"] for i in case.wrt]), strict=True
    ):
        out = op.Identity(found)
        out.name = f"grad{i}"
        out.dtype, out.shape = values[f"x{i}"].dtype, values[f"x{i}"].shape
        graph.outputs.append(out)
    return model


def _close(case: Case, found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    scale = max(float(np.abs(expected).max(initial=0)), 1e-3)
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance, rtol=0, err_msg=str(case))


def typed_array(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Floating-point arrays in ``dtype``."""
    array = np.asarray(array)
    return array.astype(dtype) if array.dtype.kind == "f" else array


def feeds(case: Case, dtype: np.dtype[Any]) -> dict[str, np.ndarray]:
    """The inputs that are no constants, by name."""
    given = {i: x for i, x in enumerate(case.inputs) if x is not None and i not in case.constants}
    return {f"x{i}": typed_array(x, dtype) for i, x in given.items()}


def run_ort(model: ir.Model, fed: dict[str, np.ndarray], optimized: bool = True) -> list[np.ndarray]:
    """Return all outputs of ``model`` on the CPU."""
    return [np.asarray(a) for a in run(model, fed, optimized=optimized).values()]


def check_half(case: Case, *, tolerance: float = 4e-3) -> None:
    """The gradient of the standard form in float16 is that of float64 at the same (rounded) inputs and cotangent."""
    half = np.dtype("float16")
    rounded = replace(
        case, inputs=[None if x is None else typed_array(typed_array(x, half), DOUBLE) for x in case.inputs]
    )
    found = {}
    for dtype in (half, DOUBLE):
        model, made = lowered(rounded, dtype)
        assert made[0] is not None
        assert made[0].shape is not None
        g = np.random.default_rng(0).standard_normal([int(d) for d in made[0].shape]).astype(half)
        model = _with_gradients(rounded, model, made[0])
        model.graph.outputs[:] = [v for v in model.graph.outputs if (v.name or "").startswith("grad")]
        fed = feeds(rounded, dtype) | {"g": g.astype(dtype)}
        if dtype == half:
            found[dtype] = run_ort(model, fed)
        else:
            found[dtype] = [np.asarray(a) for a in evaluator(model).run(None, fed)]
    for array, expected in zip(found[half], found[DOUBLE], strict=True):
        assert array.dtype == half
        scale = max(float(np.abs(expected).max(initial=0)), 1.0)
        np.testing.assert_allclose(array / scale, expected / scale, atol=tolerance, rtol=0, err_msg=str(case))
