"""Models of old opsets for tests: written, run by onnxruntime, raised, compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from nets import one_node, session

from onnx_gradcam.graph.prepare.upgrade import raise_opset

F = np.float32


def random(*shape: int, dtype: Any = F) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def f32(*numbers: float) -> np.ndarray:
    return np.array(numbers, F)


def i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def old_node(
    op_type: str,
    opset: int,
    feeds: Sequence[np.ndarray | None],
    attributes: dict[str, Any] | None = None,
    constants: Sequence[np.ndarray | None] = (),
    outputs: int = 1,
    ranked: bool = True,
) -> onnx.ModelProto:
    """Return ``op_type(*feeds, *constants)`` as a model; with ``ranked=False`` no shape of an input is declared."""
    positions = range(len(feeds), len(feeds) + len(constants))
    return one_node(
        op_type,
        [*feeds, *constants],
        attributes,
        constants=positions,
        outputs=outputs,
        opset=opset,
        ir_version=7,
        dims=lambda i, array: array.shape if ranked else None,
    )


def fed(feeds: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
    return {f"x{i}": a for i, a in enumerate(feeds) if a is not None}


def raised(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = ir.from_proto(model)
    raise_opset(copy)
    return ir.to_proto(copy)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return all outputs."""
    # onnxruntime's BatchNormalization writes running statistics into the arrays that it was fed
    outputs = session(model).run(None, {k: v.copy() for k, v in feeds.items()})
    return [np.asarray(y) for y in outputs]


def check_same(got: Sequence[np.ndarray], expected: Sequence[np.ndarray], tolerance: float = 1e-6) -> None:
    for y, e in zip(got, expected, strict=True):
        assert y.dtype == e.dtype
        scale = float(np.abs(e[np.isfinite(e)], dtype=np.float64).max(initial=0)) if e.dtype.kind == "f" else 0
        np.testing.assert_allclose(y, e, rtol=0, atol=tolerance * scale)


def check_valid(model: onnx.ModelProto) -> None:
    """Assert that the model has opset 18, and every node a form that opset 18 has."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {o.domain: o.version for o in model.opset_import}
    assert context.opset_imports[""] == 18
    assert context.ir_version >= 8
    for node in model.graph.node:
        onnx.checker.check_node(node, context)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
