"""Linear layers of a network, each with all that stands between it and its activation.

An exporter writes one layer as one node (Conv with its bias), as two (MatMul, Add) or as three (Conv, Add,
BatchNormalization). A rule that looks at the signs of weights must see the layer as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.relevance.entrance import is_moved_only, standardised
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.operators import CONVOLUTIONS, PRODUCTS
from onnx_gradcam.graph.quantization import real_form

CONVOLUTION, LINEAR = "convolution", "linear"
KINDS: Mapping[str, str] = {
    "Conv": CONVOLUTION,
    "ConvTranspose": CONVOLUTION,
    "Gemm": LINEAR,
    "MatMul": LINEAR,
}
WEIGHTED = CONVOLUTIONS | PRODUCTS


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """A linear layer y = W·x + b.

    Attributes:
        node: the node that multiplies.
        position: which of its inputs is x.
        array: the weights of the node, in its layout (for a Gemm, in that of a MatMul).
        scale: (M,), by what each channel is multiplied behind that.
        bias: b (M,), the sum of all that is added.
        y: what the layer hands on.
        outcome: the same, or the numbers that it is rounded to where nothing else reads it: a runtime that computes a
            layer in integers does not make ``y``.
        is_rectified: whether nothing but a Relu reads ``y``.
    """

    node: ir.Node
    position: int
    array: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    y: Value
    outcome: Value
    is_rectified: bool = False

    @property
    def weights(self) -> np.ndarray:
        """Return W, in the layout of ``array``: what follows the node is multiplied in."""
        wide = np.asarray(self.array, np.promote_types(self.array.dtype, np.float32))
        return wide if (self.scale == 1).all() else (wide * _on_axis(self, wide.ndim)).astype(wide.dtype)

    @property
    def kind(self) -> str:
        """Return "convolution" or "linear"."""
        return KINDS[self.node.op_type]

    @property
    def group(self) -> int:
        """Return the number of groups of channels."""
        return int(self.node.attributes.get_int("group", 1))


@dataclass(frozen=True, eq=False)
class LinearLayers:
    """The linear layers of a graph.

    Attributes:
        by_node: each layer by the node that multiplies.
        followers: the nodes that were multiplied or added into a layer.
        behind: the values that depend on a layer.
        values: all values of the graph.
    """

    by_node: Mapping[ir.Node, LinearLayer]
    followers: frozenset[ir.Node]
    behind: frozenset[Value]
    values: frozenset[Value]

    def is_first(self, x: Value) -> bool:
        """Tell whether no layer stands between the input of the network and ``x``, a value of the graph or of a node
        that was written for it."""
        pending, seen = [x], set[Value]()
        while pending:
            value = pending.pop()
            if value in self.values or value in seen:
                if value in self.behind:
                    return False
                continue
            seen.add(value)
            node = value.producer()
            if node is not None and node.op_type in WEIGHTED:
                return False
            pending.extend(v for v in (() if node is None else node.inputs) if v is not None)
        return True

    def is_of_input(self, x: Value) -> bool:
        """Tell whether ``x`` holds the numbers of an input of the graph, standardised, moved and padded at most."""
        begin = x
        while (node := begin.producer()) is not None and begin not in self.behind and node.inputs[0] is not None:
            begin = node.inputs[0]
        return begin.is_graph_input() and is_moved_only(x, standardised(begin))


def find_layers(nodes: Iterable[ir.Node]) -> LinearLayers:
    """Return the linear layers among nodes in topological order."""
    by_node: dict[ir.Node, LinearLayer] = {}
    followers: set[ir.Node] = set()
    behind, values = set[Value](), set[Value]()
    for node in nodes:
        inputs = [v for v in node.inputs if v is not None]
        values.update(inputs, node.outputs)
        layer = layer_of(node)
        if layer is not None:
            whole, added = _with_followers(layer)
            by_node[node] = replace(whole, outcome=_outcome(whole.y), is_rectified=_is_read_by(whole.y, "Relu"))
            followers.update(added)
        if node.op_type in WEIGHTED or not behind.isdisjoint(inputs):
            behind.update(node.outputs)
    return LinearLayers(by_node, frozenset(followers), frozenset(behind), frozenset(values))


def layer_of(node: ir.Node) -> LinearLayer | None:
    """Return the linear layer that one node is; None where its weights are not constant, or it is no such node."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in KINDS:
        return None
    arrays = [constant(v) for v in node.inputs]
    position = 1 if node.op_type == "MatMul" and arrays[0] is not None else 0
    array = arrays[1 - position]
    if array is None or arrays[position] is not None or array.ndim < 2 or _flag(node, "transA"):
        return None
    added = arrays[2] if len(arrays) > 2 else None
    if len(arrays) > 2 and node.inputs[2] is not None and added is None:
        return None
    is_gemm = node.op_type == "Gemm"
    array = array.T if is_gemm and _flag(node, "transB") else array
    width = _width(node, array)
    alpha, beta = (node.attributes.get_float(name, 1.0) if is_gemm else 1.0 for name in ("alpha", "beta"))
    y = node.outputs[0]
    layer = LinearLayer(node, position, array, np.full(width, alpha), np.zeros(width), y, y)
    if added is None:
        return layer
    bias = np.asarray(added, np.float64).reshape(-1) * beta
    return replace(layer, bias=layer.bias + bias) if bias.size in (1, width) else None


def _flag(node: ir.Node, name: str) -> bool:
    return node.attributes.get_int(name, 0) != 0


def _width(node: ir.Node, array: np.ndarray) -> int:
    """Return the number of channels that a layer makes; 1 for a product from the left, whose rows are places."""
    if node.op_type == "Conv":
        return int(array.shape[0])
    if node.op_type == "ConvTranspose":
        return int(array.shape[1] * node.attributes.get_int("group", 1))
    return int(array.shape[-1]) if constant(node.inputs[1]) is not None else 1


def _with_followers(layer: LinearLayer) -> tuple[LinearLayer, list[ir.Node]]:
    """Return a layer with the nodes behind it that scale and shift its channels, and these nodes."""
    followers: list[ir.Node] = []
    while (node := _only_reader(layer.y)) is not None:
        line = _line(node, layer)
        if line is None:
            return layer, followers
        scale, shift = line
        bias = layer.bias * scale + shift
        layer = replace(layer, scale=layer.scale * scale, bias=bias, y=node.outputs[0])
        followers.append(node)
    return layer, followers


def _only_reader(value: Value) -> ir.Node | None:
    """Return the node that reads ``value``, where it is the only one."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _is_read_by(value: Value, op_type: str) -> bool:
    node = _only_reader(value)
    return node is not None and node.op_type == op_type


def _outcome(y: Value) -> Value:
    """Return ``y``, or what a QuantizeLinear and a DequantizeLinear make of it where nothing else reads it."""
    node = _only_reader(y)
    if node is None or node.op_type != "QuantizeLinear":
        return y
    rounded = node.outputs[0]
    real = real_form(rounded)
    return y if real is rounded else real


def _line(node: ir.Node, layer: LinearLayer) -> tuple[np.ndarray, np.ndarray] | None:
    """Return scale and shift of each channel, (M,), by which ``node`` continues a layer; None where it does not."""
    rule = LINES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    return None if rule is None else rule(node, layer)


def _of_batch_normalization(node: ir.Node, layer: LinearLayer) -> tuple[np.ndarray, np.ndarray] | None:
    arrays = [constant(value) for value in node.inputs[1:5]]
    if layer.kind != CONVOLUTION or any(a is None for a in arrays) or _flag(node, "training_mode"):
        return None
    scale, shift, mean, variance = (np.asarray(a, np.float64) for a in arrays)
    slope = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return slope, shift - mean * slope


def _of_arithmetic(node: ir.Node, layer: LinearLayer) -> tuple[np.ndarray, np.ndarray] | None:
    is_second = node.inputs[0] is not layer.y
    if is_second and node.op_type in ("Sub", "Div"):
        return None
    array = _of_channels(constant(node.inputs[0 if is_second else 1]), layer)
    if array is None:
        return None
    one, zero = np.ones_like(array), np.zeros_like(array)
    if node.op_type in ("Add", "Sub"):
        return one, array if node.op_type == "Add" else -array
    if not array.all():
        return None
    return (array if node.op_type == "Mul" else 1 / array), zero


def _of_channels(array: np.ndarray | None, layer: LinearLayer) -> np.ndarray | None:
    """Return a constant as one number for each channel of a layer (M,); None where it is another for each place."""
    if array is None:
        return None
    width, rank = layer.bias.size, len(layer.y.shape or ())
    wide = np.asarray(array, np.float64)
    if wide.size == 1:
        return np.full(width, wide.item())
    axis = 1 if layer.kind == CONVOLUTION else rank - 1
    shape = (1,) * (rank - wide.ndim) + wide.shape
    is_of_channels = wide.size == width and len(shape) == rank and shape[axis] == width
    return wide.reshape(-1) if is_of_channels else None


def _on_axis(layer: LinearLayer, rank: int) -> np.ndarray:
    """Return the scale of a layer in a shape that broadcasts to its weights."""
    if layer.node.op_type == "Conv":
        return layer.scale.reshape(-1, *[1] * (rank - 1))
    if layer.node.op_type == "ConvTranspose":
        by_group = np.repeat(layer.scale.reshape(layer.group, -1), len(layer.array) // layer.group, axis=0)
        return by_group.reshape(*by_group.shape, *[1] * (rank - 2))
    return layer.scale


LINES: Mapping[str, Callable[[ir.Node, LinearLayer], tuple[np.ndarray, np.ndarray] | None]] = {
    "BatchNormalization": _of_batch_normalization,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _of_arithmetic),
}
