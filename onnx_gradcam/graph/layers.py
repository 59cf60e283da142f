"""Candidate target layers, ranked, and the automatic choice with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_gradcam.errors import LayerError, nearest
from onnx_gradcam.graph.flow import carriers, downstream, upstream

CONVOLUTIONS = frozenset("Conv ConvTranspose QLinearConv ConvInteger FusedConv NhwcConv DeformConv".split())
# Operators that keep every spatial position where it is (pointwise over the grid).
KEEPING = frozenset(
    "Abs Add BatchNormalization Cast Celu Clip Concat DequantizeLinear Div Dropout Elu Erf Exp Gelu "
    "GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LRN LayerNormalization LeakyRelu Log "
    "LpNormalization Max Min Mish Mul Neg PRelu Pow QuantizeLinear Reciprocal Relu Selu Sigmoid Softplus Softsign "
    "Split Sqrt Sub Sum Swish Tanh ThresholdedRelu Where".split()
)


@dataclass(frozen=True)
class Layer:
    """A value that can be explained.

    ``axes``: for each of (N, C, *space) the axis of the value that holds it. ``chosen``: whether "auto" takes it;
    ``reason``: why, or why not.
    """

    value: ir.Value
    axes: tuple[int, ...]
    chosen: bool
    reason: str

    @property
    def name(self) -> str:
        """The name of the ONNX value."""
        return self.value.name or ""

    @property
    def dims(self) -> tuple[int | str, ...]:
        """The shape, channels first; a string where it is not known before the run."""
        shape = self.value.shape
        assert shape is not None
        found = [shape[k] for k in self.axes]
        return tuple(d if isinstance(d, int) else (d.value or "?") for d in found)


def grids(nodes: Sequence[ir.Node]) -> dict[ir.Value, tuple[int, ...]]:
    """The values on a convolution's grid, with their axes in the order (N, C, *space).

    A convolution begins a grid; operators of ``KEEPING``, Transpose and pointwise MatMul carry it on.
    """
    found: dict[ir.Value, tuple[int, ...]] = {}
    for node in nodes:
        value = node.outputs[0]
        shape = value.shape
        if shape is None:
            continue
        if node.op_type in CONVOLUTIONS:
            found[value] = tuple(range(len(shape)))
        elif node.op_type == "Transpose":
            source = node.inputs[0]
            if source in found:
                perm = [int(k) for k in node.attributes["perm"].as_ints()] if "perm" in node.attributes else None
                order = perm or list(reversed(range(len(shape))))
                found[value] = tuple(order.index(k) for k in found[source])
        elif node.op_type in KEEPING or _is_pointwise_matmul(node, found):
            same = [v for v in node.inputs if v in found and v is not None and _same_grid(v, value, found[v])]
            if same:
                for output in node.outputs:
                    found[output] = found[same[0]]
    return found


def _is_pointwise_matmul(node: ir.Node, found: dict[ir.Value, tuple[int, ...]]) -> bool:
    """x · W with channels last and a plain weight matrix: a 1×1 convolution."""
    if node.op_type != "MatMul" or node.inputs[0] not in found or node.inputs[0] is None:
        return False
    weight = node.inputs[1]
    axes = found[node.inputs[0]]
    return weight is not None and weight.shape is not None and len(weight.shape) == 2 and axes[1] == len(axes) - 1


def _same_grid(a: ir.Value, b: ir.Value, axes: tuple[int, ...]) -> bool:
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return False
    return all(_dim(a, k) == _dim(b, k) for k in axes[2:])


def _dim(value: ir.Value, axis: int) -> int | str | None:
    assert value.shape is not None
    dim = value.shape[axis]
    return dim if isinstance(dim, int) else dim.value


def bottlenecks(nodes: Sequence[ir.Node], inputs: Sequence[ir.Value], score: ir.Value) -> list[ir.Value]:
    """The values that every differentiable path from the inputs to the score goes through, in graph order.

    Paths are counted: v is one of them when (paths to v) · (paths from v) = all paths.
    """
    path = downstream(nodes, inputs) & upstream(nodes, score)
    to: dict[ir.Value, int] = {v: 1 for v in inputs if v in path}
    for node in nodes:
        arriving = sum(to.get(v, 0) for _, v in carriers(node) if v in path)
        to.update({v: arriving for v in node.outputs if v in path and arriving})
    back: dict[ir.Value, int] = {score: 1}
    for node in reversed(nodes):
        leaving = sum(back.get(v, 0) for v in node.outputs)
        for _, value in carriers(node):
            if value in path and leaving:
                back[value] = back.get(value, 0) + leaving
    total = to.get(score, 0)
    values = [v for node in nodes for v in node.outputs if v in to and v in back]
    return [v for v in values if to[v] * back[v] == total]


def candidates(graph: ir.Graph, score: ir.Value) -> list[Layer]:
    """Ends of convolutional blocks on the way to ``score``, the deepest first; the first is what "auto" takes.

    A block begins with a convolution and ends with the last value that keeps its grid. Taken is the deepest block end
    with more than one spatial position that every path to the score goes through.
    """
    nodes = list(graph)
    on_grid = grids(nodes)
    needed = set(bottlenecks(nodes, graph.inputs, score))
    path = downstream(nodes, graph.inputs) & upstream(nodes, score)
    depth = {v: k for k, node in enumerate(nodes) for v in node.outputs}
    ends = [v for v in on_grid if v in path and _ends_block(v, on_grid, path)]
    layers: list[Layer] = []
    for value in sorted(ends, key=lambda v: depth[v], reverse=True):
        axes = on_grid[value]
        if not _has_space(value, axes):
            layers.append(Layer(value, axes, False, "has one spatial position only"))
        elif value not in needed:
            layers.append(Layer(value, axes, False, "some paths to the score go around it"))
        elif any(layer.chosen for layer in layers):
            layers.append(Layer(value, axes, False, "a deeper one is there"))
        else:
            layers.append(Layer(value, axes, True, "the end of the last convolutional stage"))
    return sorted(layers, key=lambda layer: not layer.chosen)


def _ends_block(value: ir.Value, on_grid: dict[ir.Value, tuple[int, ...]], path: set[ir.Value]) -> bool:
    """Whether something other than a pointwise operator on the same grid reads ``value``."""
    readers = [node for node in value.consumers() if any(v in path for v in node.outputs)]
    return not readers or any(
        not any(v in on_grid for v in node.outputs) or node.op_type in CONVOLUTIONS for node in readers
    )


def _has_space(value: ir.Value, axes: tuple[int, ...]) -> bool:
    return len(axes) > 2 and any(_dim(value, k) != 1 for k in axes[2:])


def choose(graph: ir.Graph, score: ir.Value, names: Sequence[str]) -> list[Layer]:
    """The target layers: by value or node name, or the automatic choice for ``["auto"]``.

    Raises ``LayerError`` for an unknown name, or where no convolutional stage is found.
    """
    if list(names) == ["auto"]:
        ranked = candidates(graph, score)
        if not ranked or not ranked[0].chosen:
            raise LayerError(
                "no convolutional stage was found between the input and the score",
                where=f"score {score.name!r}",
                hint="name a value of shape (N, C, H, W) with --layer NAME (`onnx-gradcam inspect MODEL`)",
            )
        return ranked[:1]
    on_grid = grids(list(graph))
    return [_named(graph, name, on_grid) for name in names]


def _named(graph: ir.Graph, name: str, on_grid: dict[ir.Value, tuple[int, ...]]) -> Layer:
    values = {k: v for k, v in ir.convenience.create_value_mapping(graph).items() if not v.is_initializer()}
    by_node = {node.name: node.outputs[0] for node in graph if node.name}
    value = values.get(name) or by_node.get(name)
    if value is None:
        close = nearest(name, [*(v.name or "" for v in on_grid), *by_node, *values])
        raise LayerError(f"the model has no value or node {name!r}", hint=f"one of {close}", name=name)
    axes = on_grid.get(value)
    if axes is None:
        rank = 0 if value.shape is None else len(value.shape)
        if rank < 3:
            raise LayerError(
                f"{name!r} has no spatial axes: Grad-CAM needs a value of shape (N, C, *space)",
                where=f"shape {'?' if value.shape is None else tuple(value.shape)}",
                hint="a layer before the pooling or flattening: `onnx-gradcam inspect MODEL` lists them",
                name=name,
            )
        axes = tuple(range(rank))
    return Layer(value, axes, True, "named by the user")


LINEAR = frozenset("Gemm MatMul Conv".split())
POOLING = frozenset("GlobalAveragePool AveragePool ReduceMean".split())
CARRYING = frozenset("Flatten Reshape Squeeze Unsqueeze Transpose Identity Dropout Cast Add".split())


def has_linear_head(nodes: Sequence[ir.Node], layer: ir.Value, score: ir.Value) -> bool:
    """Whether global average pooling and at most one linear layer are all that lies between ``layer`` and ``score``."""
    path = downstream(nodes, [layer]) & upstream(nodes, score)
    between = [n.op_type for n in nodes if layer not in n.outputs and any(v in path for v in n.outputs)]
    linear = [op for op in between if op in LINEAR]
    return len(linear) <= 1 and all(op in LINEAR | POOLING | CARRYING for op in between)
