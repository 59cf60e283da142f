"""What onnxruntime-training 1.19.2 differentiates rightly, and standard operators for what it does not.

Every row was found by comparing its gradient, operator by operator, with the cases of tests/autodiff/rules.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import Unwritten
from onnx_gradcam.autodiff.rules.windows import Windows, fit, place_windows
from onnx_gradcam.errors import UnsupportedGradient
from onnx_gradcam.graph.attributes import Windowed
from onnx_gradcam.graph.builder import Builder, Value, is_compact, rank, static_dims
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import carriers, downstream, upstream
from onnx_gradcam.graph.lowering.registry import Unlowered
from onnx_gradcam.graph.lowering.table import is_lowered, lower
from onnx_gradcam.graph.names import FORM, values_by_name
from onnx_gradcam.graph.prepare.pools import SAME

SUPPORTED = frozenset(
    "Abs Add AveragePool Cast Clip Concat Conv Cos Div Erf Exp Expand Flatten Gather GatherElements GatherND Gelu Gemm "
    "GlobalAveragePool Identity LeakyRelu Log LogSoftmax MatMul Max MaxPool Min Mul Neg Pad Pow Reciprocal ReduceMean "
    "ReduceSum Relu Reshape ScatterElements ScatterND Sigmoid Sin Slice Softmax Split Sqrt Squeeze Sub Tanh Tile "
    "Transpose Trilu Unsqueeze Where".split()
)

# --- forms of a supported operator of which the gradient is wrong ----------------------------------------------


def _conv(node: ir.Node) -> str:
    if node.attributes.get_string("auto_pad", "NOTSET") in SAME:
        return "its padding is taken for 0 where auto_pad says SAME"
    deep = len(node.outputs[0].shape or ()) > 4 and constant(node.inputs[1]) is None
    return "that of the weights is 0 in three dimensions" if deep else ""


def _average_pool(node: ir.Node) -> str:
    if node.inputs[0] is None or static_dims(node.inputs[0]) is None:
        return "its gradient is empty where an axis, the batch included, has a symbolic length"
    given = node.attributes
    if given.get_string("auto_pad", "NOTSET") in SAME or max(given.get_ints("dilations", (1,))) > 1:
        return "auto_pad and dilations are passed over"
    if len(given.get_ints("kernel_shape", ())) > 2:
        return "it is wrong in three dimensions"
    overhangs = given.get_int("ceil_mode", 0) and given.get_int("count_include_pad", 0)
    return "what overhangs with ceil_mode is counted" if overhangs else ""


def _max_pool(node: ir.Node) -> str:
    x = node.inputs[0]
    if x is None or x.shape is None or not all(isinstance(d, int) for d in list(x.shape)[1:]):
        return "its gradient crashes the process where channels or sizes are symbolic"
    return "storage_order is passed over" if node.attributes.get_int("storage_order", 0) else ""


def _names_apart(*values: Value | None) -> str:
    """Return an objection where two symbolic lengths have different names: one of them may be 1."""
    shapes = [list(v.shape)[::-1] for v in values if v is not None and v.shape is not None]
    for a, b in itertools.combinations(shapes, 2):
        for p, q in zip(a, b, strict=False):
            if not isinstance(p, int) and not isinstance(q, int) and p.value and q.value and p.value != q.value:
                return "symbolic lengths of different names are taken to be equal"
    return ""


def _elementwise(node: ir.Node) -> str:
    return _names_apart(*node.inputs)


def _gemm(node: ir.Node) -> str:
    return _names_apart(*node.inputs[2:], node.outputs[0])


def _matmul(node: ir.Node) -> str:
    shapes = [list(v.shape) for v in node.inputs if v is not None and v.shape is not None]
    unknown = any(not isinstance(d, int) for shape in shapes for d in shape)
    if any(len(shape) == 1 for shape in shapes) and (unknown or any(len(shape) > 2 for shape in shapes)):
        return "it takes a vector for a matrix"
    stacks = [ir.Shape(shape[:-2]) for shape in shapes]
    return _names_apart(*(ir.val(None, shape=stack) for stack in stacks))


def _expand(node: ir.Node) -> str:
    known = node.inputs[0] is not None and static_dims(node.inputs[0]) is not None
    return "" if known else "it fails where a symbolic length may be repeated"


def _where(node: ir.Node) -> str:
    choices = [v for v in node.inputs[1:] if v is not None and constant(v) is None]
    short = any(is_compact(v, node.outputs[0]) for v in choices)
    return "its gradient is not summed where an input is broadcast" if short else ""


def _scatter(node: ir.Node) -> str:
    return "its reduction is passed over" if node.attributes.get_string("reduction", "none") != "none" else ""


def _reduce_sum(node: ir.Node) -> str:
    at_run_time = node.attributes.get_int("noop_with_empty_axes", 0) and any(
        constant(v) is None for v in node.inputs[1:]
    )
    return "axes that are known at run time only may be none" if at_run_time else ""


def _slice(node: ir.Node) -> str:
    steps = constant(node.inputs[4]) if len(node.inputs) > 4 else np.ones(1)
    return "it fails where steps may be negative" if steps is None or (steps < 0).any() else ""


def _pad(node: ir.Node) -> str:
    return "its axes are passed over" if len(node.inputs) > 3 else ""


def _gelu(node: ir.Node) -> str:
    return (
        "the gradient is that of the exact form" if node.attributes.get_string("approximate", "none") != "none" else ""
    )


def _leaky_relu(node: ir.Node) -> str:
    return "the sign is read from the output" if node.attributes.get_float("alpha", 0.01) < 0 else ""


DOUBTS: dict[str, Callable[[ir.Node], str]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min"), _elementwise),
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Conv": _conv,
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "Expand": _expand,
    "Where": _where,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "ReduceSum": _reduce_sum,
    "Slice": _slice,
    "Pad": _pad,
    "Gelu": _gelu,
    "LeakyRelu": _leaky_relu,
}


def objection(node: ir.Node) -> str:
    """Return why onnxruntime-training cannot be trusted with a node, "" where it can."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in SUPPORTED:
        return "it has none"
    return DOUBTS[node.op_type](node) if node.op_type in DOUBTS else ""


# --- the same by operators that it differentiates rightly ----------------------------------------------------


def _explicit(node: ir.Node, kernel: Sequence[int]) -> Windows:
    given, n, x = node.attributes, len(kernel), node.inputs[0]
    assert x is not None
    auto_pad = given.get_string("auto_pad", "NOTSET")
    if not kernel:
        raise Unwritten("windows of symbolic size")
    strides, dilations = given.get_ints("strides", (1,) * n), given.get_ints("dilations", (1,) * n)
    dims = list(x.shape or [])[2:]
    if auto_pad in SAME and (max(strides) > 1 and not all(isinstance(d, int) for d in dims)):
        raise Unwritten("SAME padding of an image of symbolic size")
    pads = given.get_ints("pads", (0,) * 2 * n)
    at = Windowed(auto_pad=auto_pad, dilations=dilations, pads=pads, strides=strides)
    return place_windows(x, kernel, at, rounds_up=bool(given.get_int("ceil_mode", 0)))


def conv(op: Builder, node: ir.Node) -> Value:
    """Write the convolution with the pads that auto_pad stands for."""
    x, w, *b = node.inputs
    assert w is not None
    if node.attributes.get_string("auto_pad", "NOTSET") not in SAME or (rank(w) > 4 and constant(w) is None):
        raise Unwritten("weights that vary")
    at = _explicit(node, tuple(d for d in list(w.shape or [])[2:] if isinstance(d, int)))
    group = node.attributes.get_int("group", 1)
    pads = [*at.before, *at.after]
    return op.Conv(x, w, *b, pads=pads, strides=at.strides, dilations=at.dilations, group=group)


def average_pool(op: Builder, node: ir.Node) -> Value:
    """Write the mean as a convolution with ones, divided by how many elements count in each window."""
    x, kernel = node.inputs[0], node.attributes.get_ints("kernel_shape", ())
    assert x is not None
    channels = list(x.shape or [])[1:2]
    if not channels or not isinstance(channels[0], int):
        raise Unwritten("a symbolic number of channels")
    at = _explicit(node, kernel)
    after, rounds_up = fit(at)
    if rounds_up:
        raise Unwritten("ceil_mode on an image of symbolic size")
    counted = _counted(at, bool(node.attributes.get_int("count_include_pad", 0)))
    ones = op.const(np.ones((channels[0], 1, *kernel)), like=x)
    pads = [*at.before, *after]
    total = op.Conv(x, ones, pads=pads, strides=at.strides, dilations=at.dilations, group=channels[0])
    return op.Mul(total, op.const(1 / counted, like=x))


def _counted(at: Windows, with_padding: bool) -> np.ndarray:
    """Return how many elements each window averages over, (*counts), or one number where all have as many."""
    n, found = len(at.kernel), np.ones((1, 1) + (1,) * len(at.kernel))
    for j, (size, count) in enumerate(zip(at.sizes, at.counts, strict=True)):
        if size is None or count is None:
            if (at.before[j] or at.after[j]) and not with_padding:
                raise Unwritten("padding of an image of symbolic size")
            here = np.full(1, at.kernel[j])
        else:
            first, end = (-at.before[j], size + at.after[j]) if with_padding else (0, size)
            taps = np.arange(count)[:, None] * at.strides[j] + np.arange(at.kernel[j]) * at.dilations[j] - at.before[j]
            here = ((taps >= first) & (taps < end)).sum(axis=1)
        found = found * here.reshape([-1 if k == 2 + j else 1 for k in range(2 + n)])
    return found


def global_max_pool(op: Builder, node: ir.Node) -> Value:
    """Write a MaxPool with one window."""
    dims = list(node.inputs[0].shape or []) if node.inputs[0] is not None else []
    kernel = [d for d in dims[2:] if isinstance(d, int)]
    if not kernel or len(kernel) < len(dims) - 2:
        raise Unwritten("an image of symbolic size")
    return op.MaxPool(node.inputs[0], kernel_shape=kernel)


def batch_normalization(op: Builder, node: ir.Node) -> Value:
    """(x − mean) · s / √(var + ε) + b, at inference."""
    x, scale, shift, mean, variance = (_given(v) for v in node.inputs)
    if len([v for v in node.outputs if v.name]) > 1 or bool(node.attributes.get_int("training_mode", 0)):
        raise Unwritten("training mode")
    epsilon = op.const(node.attributes.get_float("epsilon", 1e-5), like=variance)
    factor = op.Div(scale, op.Sqrt(op.Add(variance, epsilon)))
    return op.Add(op.Mul(op.Sub(x, _channels(op, mean, x)), _channels(op, factor, x)), _channels(op, shift, x))


def instance_normalization(op: Builder, node: ir.Node) -> Value:
    """(x − mean) / √(var + ε) · s + b, over the spatial axes."""
    x, scale, shift = (_given(v) for v in node.inputs)
    axes = op.ints(*range(2, rank(x)))
    centred = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
    deviation = op.Sqrt(op.Add(variance, op.const(node.attributes.get_float("epsilon", 1e-5), like=x)))
    return op.Add(op.Mul(op.Div(centred, deviation), _channels(op, scale, x)), _channels(op, shift, x))


def lrn(op: Builder, node: ir.Node) -> Value:
    """x / (bias + α/size · Σ x²)^β, the sum over neighbouring channels: a convolution along them."""
    x, given = _given(node.inputs[0]), node.attributes
    size, n = given.get_int("size", 1), rank(x) - 2
    before = (size - 1) // 2
    row = op.Unsqueeze(op.Mul(x, x), op.ints(1))
    ones = op.const(np.ones((1, 1, size, *[1] * n)), like=x)
    total = op.Squeeze(op.Conv(row, ones, pads=[before, *[0] * n, size - 1 - before, *[0] * n]), op.ints(1))
    mean = op.Mul(total, op.const(given.get_float("alpha", 1e-4) / size, like=x))
    power = op.Pow(
        op.Add(mean, op.const(given.get_float("bias", 1.0), like=x)), op.const(-given.get_float("beta", 0.75), like=x)
    )
    return op.Mul(x, power)


def dropout(op: Builder, node: ir.Node) -> Value:
    """Write x: at inference nothing is dropped."""
    if len([v for v in node.outputs if v.name]) > 1 or len(node.inputs) > 2:
        raise Unwritten("a mask")
    return op.Identity(node.inputs[0])


def total(op: Builder, node: ir.Node) -> Value:
    """Write the sum pair by pair."""
    first, *others = (_given(v) for v in node.inputs)
    for other in others:
        first = op.Add(first, other)
    return first if others else op.Identity(first)


def tanh_gelu(op: Builder, node: ir.Node) -> Value:
    """x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))."""
    x = _given(node.inputs[0])
    inner = op.Mul(x, op.Add(op.Mul(op.Mul(x, x), op.const(0.044715, like=x)), op.const(1, like=x)))
    tanh = op.Tanh(op.Mul(inner, op.const(math.sqrt(2 / math.pi), like=x)))
    return op.Mul(op.Mul(x, op.const(0.5, like=x)), op.Add(tanh, op.const(1, like=x)))


def cast_like(op: Builder, node: ir.Node) -> Value:
    """Write a Cast to the type that is known."""
    return op.Cast(node.inputs[0], to=_given(node.inputs[1]).dtype)


def where(op: Builder, node: ir.Node) -> Value:
    """Write the choice with both sides expanded."""
    condition, *choices = (_given(v) for v in node.inputs)
    like = op.Where(condition, *choices)
    return op.Where(condition, *(op.fill(v, like) for v in choices))


def _given(value: Value | None) -> Value:
    assert value is not None
    return value


def _channels(op: Builder, v: Value, x: Value) -> Value:
    """Return ``v`` (C,) as (C, 1, …)."""
    return op.Unsqueeze(v, op.ints(*range(1, rank(x) - 1))) if rank(x) > 2 else v


FORMS: dict[str, Callable[[Builder, ir.Node], Value]] = {
    "Conv": conv,
    "AveragePool": average_pool,
    "GlobalMaxPool": global_max_pool,
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": lrn,
    "Dropout": dropout,
    "Sum": total,
    "Gelu": tanh_gelu,
    "CastLike": cast_like,
    "Where": where,
}


def write_out(graph: ir.Graph, names: Sequence[str], score: str) -> None:
    """Replace what onnxruntime-training cannot be trusted with, between the values ``names`` and ``score``.

    Raises ``UnsupportedGradient`` for an operator that cannot be written otherwise.
    """
    op = Builder(graph, FORM)
    while unfit := [node for node in on_path(graph, names, score) if objection(node)]:
        for node in unfit:
            _replace(op, node)
    for node in [node for node in graph if node.op_type == "CastLike"]:  # the builder follows its second input, too
        _replace(op, node)


def on_path(graph: ir.Graph, names: Sequence[str], score: str) -> list[ir.Node]:
    """Return the nodes that a gradient flows through, between the values ``names`` and ``score``."""
    nodes, values = list(graph), values_by_name(graph)
    path = downstream(nodes, [values[name] for name in names]) & upstream(nodes, values[score])
    return [
        node for node in nodes if any(v in path for v in node.outputs) and any(v in path for _, v in carriers(node))
    ]


def _replace(op: Builder, node: ir.Node) -> None:
    start = len(op.written)
    try:
        made = (
            (FORMS[node.op_type](op, node),) if node.op_type in FORMS else lower(op, node) if is_lowered(node) else None
        )
    except (Unwritten, Unlowered) as reason:
        raise _refusal(node, f"; written otherwise: not {reason}") from None
    if made is None:
        raise _refusal(node)
    for inner in op.written[start:]:
        op.graph.remove(inner)
        node.prepend(inner)
    for mine, theirs in zip(made, node.outputs, strict=False):
        if mine is not None and theirs.name:
            theirs.replace_all_uses_with(mine, replace_graph_outputs=True)
            mine.name, theirs.name = theirs.name, None
    op.graph.remove(node, safe=True)


def _refusal(node: ir.Node, more: str = "") -> UnsupportedGradient:
    return UnsupportedGradient(
        f"onnxruntime-training cannot be trusted with the gradient of {node.op_type}: {objection(node)}{more}",
        where=f"node {node.name!r}",
        hint='engine="rules"',
        op_type=node.op_type,
        node=node.name,
    )
