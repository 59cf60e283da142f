"""One operator with concrete inputs: the model of it alone, and that model with the gradients of its rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from nets import one_node

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.prepare.inference import infer


@dataclass(frozen=True)
class Case:
    """One operator with concrete inputs.

    ``inputs``: float64 (or integer) arrays, None for an omitted optional input. ``wrt``: the inputs to differentiate.
    ``constants``: positions of inputs that are initializers. Everything else is a graph input.
    ``typed``: positions of inputs that keep their own dtype. ``free``: the axes of graph inputs that have symbolic
    lengths in the dynamic check; None: all.
    """

    op_type: str
    inputs: Sequence[np.ndarray | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    wrt: Sequence[int] = (0,)
    constants: Sequence[int] = ()
    typed: Sequence[int] = ()
    free: Sequence[int] | None = None
    outputs: int = 1
    opset: int = 18
    id: str = ""
    step: float = 1e-6
    tolerance: float = 1e-6
    ort: bool = True

    def __str__(self) -> str:
        return f"{self.op_type}-{self.id}" if self.id else self.op_type


def forward_model(case: Case, dtype: np.dtype[Any], dynamic: bool) -> onnx.ModelProto:
    """Return the operator alone, as a model with outputs y0, y1, …"""
    free = range(99) if case.free is None else case.free

    def dims(i: int, array: np.ndarray) -> list[int | str]:
        return [f"x{i}_{k}" if dynamic and k in free else d for k, d in enumerate(array.shape)]

    inputs = [None if x is None else typed_input(case, i, dtype) for i, x in enumerate(case.inputs)]
    more = {"constants": case.constants, "outputs": case.outputs, "opset": case.opset, "dims": dims}
    model = one_node(case.op_type, inputs, case.attributes, **more)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def with_gradients(
    case: Case, dtype: np.dtype[Any], dynamic: bool, cotangents: Mapping[str, np.ndarray] | None = None
) -> ir.Model:
    """Return the model plus inputs g0 (cotangent of y0), … and outputs grad0, … for every input of ``wrt``.

    The cotangents are of the outputs' shapes, or of the shapes that ``cotangents`` has.
    """
    model = ir.from_proto(forward_model(case, dtype, dynamic))
    infer(model)
    graph = model.graph
    values = ir.convenience.create_value_mapping(graph)
    nodes = list(graph)
    op = Builder(graph)
    seeds = {}
    for i in range(case.outputs):
        y = values[f"y{i}"]
        if y.dtype is None:  # shape inference does not know GroupNormalization, whose output is like its input
            y.dtype, y.shape = values["x0"].dtype, values["x0"].shape
        if y.dtype is not None and y.dtype.is_floating_point():
            shape = y.shape if cotangents is None else cotangents[f"g{i}"].shape
            seeds[y] = ir.val(f"g{i}", dtype=y.dtype, shape=shape)
            graph.inputs.append(seeds[y])
    gradients = pull_back(op, nodes, seeds, [values[f"x{i}"] for i in case.wrt])
    for i, gradient in zip(case.wrt, gradients, strict=True):
        out = op.Identity(gradient)
        out.name = f"grad{i}"
        out.dtype, out.shape = values[f"x{i}"].dtype, values[f"x{i}"].shape
        graph.outputs.append(out)
    return model


def typed(model: ir.Model, gs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the cotangents in the dtypes of the graph inputs that take them."""
    return {
        v.name: gs[v.name].astype(v.dtype.numpy()) for v in model.graph.inputs if v.name in gs and v.dtype is not None
    }


def feeds(case: Case, dtype: np.dtype[Any]) -> dict[str, np.ndarray]:
    """Return the inputs that are neither left out nor constants, by name."""
    fed = [i for i, x in enumerate(case.inputs) if x is not None and i not in case.constants]
    return {f"x{i}": typed_input(case, i, dtype) for i in fed}


def typed_input(case: Case, i: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Return input i, floats in ``dtype`` unless the case has typed it."""
    array = np.asarray(case.inputs[i])
    return array if i in case.typed else cast(array, dtype)


def cast(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Return floats in ``dtype``, everything else as it is."""
    array = np.asarray(array)
    return array.astype(dtype) if array.dtype.kind == "f" else array
