"""16-bit models: checked in float32, with the same weights and no rounding in between; then 16 bits against 32.

Differences of a 16-bit score are too coarse to measure a slope by. Rules and gradient are therefore checked on the same
graph in float32, and what each rule gives in 16 bits is compared with what it gives in float32 at the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import Key, Rule
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.graph.builder import HALF_PRECISION
from onnx_gradcam.verify.alone import alone, array_of
from onnx_gradcam.verify.path import CheckedNode
from onnx_gradcam.verify.points import cotangents
from onnx_gradcam.verify.report import Check, NodeCheck

# Relative L2 distances of a result in 16 bits from that in float32, on SqueezeNet and the demo models in float16.
# A rule at its node: at most 2.8e-4 was measured, the rounding of its output. The gradient at a target layer: 2.2e-4
# where everything behind it is smooth, 7.3e-2 where rounding flips rectifiers and ties of pools behind it.
NODE_LIMIT = 3e-3
LAYER_LIMIT = 0.2

Known = Mapping[str, np.ndarray]


def in_float32(prepared: ir.Model) -> ir.Model:
    """Return a model with all float16 and bfloat16 values, constants and Casts in float32; the names stay."""
    model = prepared.clone()
    for graph in model.graphs():
        for value in [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]:
            _widen(value)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in HALF_PRECISION:
                    node.attributes[name] = ir.AttrTensor(name, _wide(attribute.as_tensor()))
                elif name in ("to", "dtype") and attribute.as_int() in HALF_PRECISION:
                    node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    return model


def arrays(given: Known) -> dict[str, np.ndarray]:
    """Return 16-bit floats as float32, everything else as it is."""
    return {k: a.astype(np.float32) if a.dtype.itemsize == 2 and a.dtype.kind in "fV" else a for k, a in given.items()}


def in_16_bits(
    found: Sequence[NodeCheck],
    narrow: CheckedNode,
    wide: CheckedNode,
    known: Known,
    options: Options,
    table: Mapping[Key, Rule],
    rng: np.random.Generator,
) -> list[NodeCheck]:
    """Return the float32 results, failed where the rule's result in 16 bits at ``narrow`` is another."""
    gs = [cotangents(known[narrow.node.outputs[k].name or ""], rng)[0] for k in narrow.outputs]
    here = _gradients(narrow, known, gs, options, table)
    there = _gradients(wide, arrays(known), [g.astype(np.float32) for g in gs], options, table)
    results = []
    for check in found:
        error = distance(here[check.input], there[check.input])
        if error is not None and not error <= NODE_LIMIT:
            check = replace(check, status="fail", error=error, message="in 16 bits, against float32")
        results.append(check)
    return results


def distance(own: np.ndarray, wide: np.ndarray) -> float | None:
    """Return ‖own − wide‖ / ‖wide‖; None where ``wide`` is zero."""
    norm = float(np.linalg.norm(wide))
    return float(np.linalg.norm(own.astype(np.float64) - wide)) / norm if norm else None


def compare(name: str, own: np.ndarray, wide: np.ndarray) -> Check:
    """Compare the gradient at a target layer in 16 bits with that in float32."""
    what = f"gradient at {name!r}, in 16 bits against float32"
    error = distance(own, wide)
    if error is None:
        return Check(what, "undecided", None, LAYER_LIMIT, "it is zero in float32")
    passed = bool(error <= LAYER_LIMIT)  # not so for NaN
    return Check(what, "pass" if passed else "fail", error if np.isfinite(error) else None, LAYER_LIMIT)


def _gradients(
    site: CheckedNode, known: Known, gs: Sequence[np.ndarray], options: Options, table: Mapping[Key, Rule]
) -> dict[int, np.ndarray]:
    inputs = [None if v is None else array_of(v, known) for v in site.node.inputs]
    session = Session(alone(site, inputs, table), options)
    fed = {f"x{i}": a for i, a in enumerate(inputs) if a is not None}
    fed |= {f"g{k}": g for k, g in zip(site.outputs, gs, strict=True)}
    names = [f"grad{i}" for i in site.wrt]
    results = session.run(names, {name: fed[name] for name in session.inputs})
    return {i: results[f"grad{i}"].astype(np.float64) for i in site.wrt}


def _widen(value: ir.Value) -> None:
    if value.dtype in HALF_PRECISION:
        value.type = ir.TensorType(ir.DataType.FLOAT)  # a new one: a copied graph shares them with its original
        if value.const_value is not None:
            value.const_value = _wide(value.const_value)


def _wide(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy().astype(np.float32), name=tensor.name)
