"""Models of old opsets for tests: written, run by onnxruntime, raised, compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import helper, numpy_helper

from onnx_gradcam.graph.prepare.upgrade import raise_opset

F = np.float32


def random(*shape: int, dtype: Any = F) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def f32(*numbers: float) -> np.ndarray:
    return np.array(numbers, F)


def i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def attribute(name: str, value: Any) -> onnx.AttributeProto:
    kind = onnx.AttributeProto.INTS if value == [] else None
    return helper.make_attribute(name, value, attr_type=kind)


def one_node(
    op_type: str,
    opset: int,
    feeds: Sequence[np.ndarray | None],
    attributes: dict[str, Any] | None = None,
    constants: Sequence[np.ndarray | None] = (),
    outputs: int = 1,
    ranked: bool = True,
) -> onnx.ModelProto:
    """``op_type(*feeds, *constants)``; with ``ranked=False`` the shapes of the inputs are not declared."""
    names = [f"x{i}" if a is not None else "" for i, a in enumerate(feeds)]
    kept = [f"c{i}" if a is not None else "" for i, a in enumerate(constants)]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op_type, names + kept, results, name="the_node")
    node.attribute.extend(attribute(k, v) for k, v in (attributes or {}).items())
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape if ranked else None)
        for n, a in zip(names, feeds, strict=True)
        if a is not None
    ]
    graph = helper.make_graph(
        [node],
        "one_node",
        inputs,
        [helper.make_empty_tensor_value_info(r) for r in results],
        [numpy_helper.from_array(a, n) for n, a in zip(kept, constants, strict=True) if a is not None],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


def fed(feeds: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
    return {f"x{i}": a for i, a in enumerate(feeds) if a is not None}


def raised(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = ir.from_proto(model)
    raise_opset(copy)
    return ir.to_proto(copy)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    data = model.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    # onnxruntime's BatchNormalization writes running statistics into the arrays that it was fed
    return [np.asarray(y) for y in session.run(None, {k: v.copy() for k, v in feeds.items()})]


def check_same(got: Sequence[np.ndarray], expected: Sequence[np.ndarray], tolerance: float = 1e-6) -> None:
    for y, e in zip(got, expected, strict=True):
        assert y.dtype == e.dtype
        scale = float(np.abs(e[np.isfinite(e)], dtype=np.float64).max(initial=0)) if e.dtype.kind == "f" else 0
        np.testing.assert_allclose(y, e, rtol=0, atol=tolerance * scale)


def check_valid(model: onnx.ModelProto) -> None:
    """Opset 18, and every node as opset 18 has it."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {o.domain: o.version for o in model.opset_import}
    assert context.opset_imports[""] == 18
    assert context.ir_version >= 8
    for node in model.graph.node:
        onnx.checker.check_node(node, context)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
