"""Candidate target layers, ranked, and the automatic choice with its reason."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import onnx_ir as ir

from onnx_gradcam.errors import LayerError, nearest
from onnx_gradcam.graph.builder import ints_of
from onnx_gradcam.graph.flow import beginnings, carriers, downstream, results, upstream
from onnx_gradcam.graph.quantization import real_form

CONVOLUTIONS = frozenset("Conv ConvTranspose QLinearConv ConvInteger FusedConv NhwcConv DeformConv".split())
# Operators that keep every spatial position where it is (pointwise over the grid).
KEEPING = frozenset(
    "Abs Add BatchNormalization Cast Celu Clip Concat DequantizeLinear Div Dropout Elu Erf Exp Gelu "
    "GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LRN LayerNormalization LeakyRelu Log "
    "LpNormalization Max Min Mish Mul Neg PRelu Pow QuantizeLinear Reciprocal Relu Selu Sigmoid Softplus Softsign "
    "Split Sqrt Sub Sum Swish Tanh ThresholdedRelu Where DynamicQuantizeLinear QLinearAdd QLinearMul QLinearConcat "
    "QLinearLeakyRelu QLinearSigmoid QLinearWhere".split()
)
POOLS = frozenset(
    "MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool QLinearAveragePool "
    "QLinearGlobalAveragePool".split()
)
CARRYING = frozenset("Flatten Reshape Squeeze Unsqueeze Transpose Identity Dropout Cast Add".split())


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


def grids(nodes: Sequence[ir.Node], begin: Set[str] = CONVOLUTIONS) -> dict[ir.Value, tuple[int, ...]]:
    """The values on a convolution's grid, with their axes in the order (N, C, *space).

    An operator of ``begin`` begins a grid; operators of ``KEEPING``, Transpose and pointwise MatMul carry it on, and so
    do those between a Reshape and the one that undoes it (a group norm as exporters write it).
    """
    found: dict[ir.Value, tuple[int, ...]] = {}
    reshaped: dict[ir.Value, ir.Value] = {}  # → the value on the grid that holds the same elements in the same order
    for node in nodes:
        value = node.outputs[0]
        if value.shape is None:
            continue
        source = node.inputs[0] if node.inputs else None
        if node.op_type in begin:
            found[value] = tuple(range(len(value.shape)))
        elif node.op_type == "Transpose" and source in found:
            order = node.attributes.get_ints("perm", None) or list(reversed(range(len(value.shape))))
            found[value] = tuple(order.index(k) for k in found[source])
        elif node.op_type in KEEPING or _is_pointwise_matmul(node, found):
            same = [v for v in node.inputs if v in found and v is not None and _keeps(node, v, found[v])]
            if same:
                found.update(dict.fromkeys(results(node), found[same[0]]))
        origin = reshaped.get(source, source) if source is not None else None
        if value in found or origin not in found or origin is None:
            continue
        if node.op_type == "Reshape" and _same_shape(value, origin):
            found[value] = found[origin]
        elif node.op_type == "Reshape" or (source in reshaped and node.op_type in KEEPING):
            reshaped[value] = origin
    return found


def _is_pointwise_matmul(node: ir.Node, found: dict[ir.Value, tuple[int, ...]]) -> bool:
    """x · W with channels last and a plain weight matrix: a 1×1 convolution."""
    if node.op_type != "MatMul" or node.inputs[0] not in found or node.inputs[0] is None:
        return False
    weight = node.inputs[1]
    axes = found[node.inputs[0]]
    return weight is not None and weight.shape is not None and len(weight.shape) == 2 and axes[1] == len(axes) - 1


def _keeps(node: ir.Node, source: ir.Value, axes: tuple[int, ...]) -> bool:
    """Whether what ``node`` makes has the grid of ``source``: a gate is broadcast to it, a Concat may enlarge it."""
    value = node.outputs[0]
    assert source.shape is not None
    if value.shape is None or len(source.shape) != len(value.shape):
        return False
    if node.op_type in ("Concat", "QLinearConcat") and node.attributes["axis"].as_int() % len(value.shape) in axes[2:]:
        return False
    return all(_may_equal(source.shape[k], value.shape[k]) for k in axes[2:])


def _same_shape(a: ir.Value, b: ir.Value) -> bool:
    assert a.shape is not None
    assert b.shape is not None
    return len(a.shape) == len(b.shape) and all(map(_may_equal, a.shape, b.shape))


def _may_equal(a: int | ir.SymbolicDim, b: int | ir.SymbolicDim) -> bool:
    """Whether two sizes are equal; one that is not known before the run equals all but 1."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return a != 1 and b != 1


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
    begin = [v for v in beginnings(nodes, graph.inputs) if downstream(nodes, [v]) & on_grid.keys()]
    needed = set(bottlenecks(nodes, begin, score))
    path = downstream(nodes, begin) & upstream(nodes, score)
    depth = {v: k for k, node in enumerate(nodes) for v in node.outputs}
    ends = [v for v in on_grid if v in path and _ends_block(v, on_grid, path)]
    layers: list[Layer] = []
    for value in sorted(ends, key=lambda v: depth[v], reverse=True):
        axes, shown = on_grid[value], real_form(value)
        if any(layer.value is shown for layer in layers):
            continue
        if not _has_space(value, axes):
            layers.append(Layer(shown, axes, False, "has one spatial position only"))
        elif value not in needed:
            layers.append(Layer(shown, axes, False, "some paths to the score go around it"))
        elif any(layer.chosen for layer in layers):
            layers.append(Layer(shown, axes, False, "a deeper one is there"))
        else:
            layers.append(Layer(shown, axes, True, "the end of the last convolutional stage"))
    return sorted(layers, key=lambda layer: not layer.chosen)


def _ends_block(value: ir.Value, on_grid: dict[ir.Value, tuple[int, ...]], path: set[ir.Value]) -> bool:
    """Whether something other than a pointwise operator on the same grid reads ``value``."""
    readers = [node for node in value.consumers() if any(v in path for v in node.outputs)]
    return not readers or any(
        not any(v in on_grid for v in node.outputs) or node.op_type in CONVOLUTIONS for node in readers
    )


def _has_space(value: ir.Value, axes: tuple[int, ...]) -> bool:
    assert value.shape is not None
    return any(value.shape[k] != 1 for k in axes[2:])


def choose(graph: ir.Graph, score: ir.Value, names: Sequence[str]) -> list[Layer]:
    """The target layers: by value or node name, or the automatic choice for ``["auto"]``.

    Raises ``LayerError`` for an unknown name, or where no convolutional stage is found.
    """
    if list(names) == ["auto"]:
        ranked = candidates(graph, score)
        if not ranked or not ranked[0].chosen:
            _refuse_broken_path(graph, score)
            raise LayerError(
                "no convolutional stage was found between the input and the score",
                where=f"score {score.name!r}",
                hint="name a value of shape (N, C, H, W) with --layer NAME (`onnx-gradcam inspect MODEL`)",
            )
        return ranked[:1]
    on_grid = grids(list(graph), begin=CONVOLUTIONS | POOLS)
    return [_named(graph, name, on_grid) for name in names]


def _refuse_broken_path(graph: ir.Graph, score: ir.Value) -> None:
    """Raise ``LayerError`` naming the operator where every differentiable path from the input ends before the score."""
    nodes = list(graph)
    reached = downstream(nodes, beginnings(nodes, graph.inputs))
    if score in reached:
        return
    ends = [n for n in nodes if any(v in reached for _, v in carriers(n)) and not any(v in reached for v in n.outputs)]
    quantized = any(n.op_type.startswith(("Quantize", "DynamicQuantize", "QLinear")) for n in nodes)
    raise LayerError(
        "no differentiable path leads from the input to the score",
        where=f"the first to end: node {ends[0].name!r} ({ends[0].op_type})" if ends else f"score {score.name!r}",
        hint="the float model that was quantized" if quantized else "another score: --score NAME",
        operators=tuple(sorted({n.op_type for n in ends})),
    )


def _named(graph: ir.Graph, name: str, on_grid: dict[ir.Value, tuple[int, ...]]) -> Layer:
    values = {k: v for k, v in ir.convenience.create_value_mapping(graph).items() if not v.is_initializer()}
    by_node = {node.name: node.outputs[0] for node in graph if node.name}
    value = values.get(name) or by_node.get(name)
    if value is None:
        close = nearest(name, [*(v.name or "" for v in on_grid), *by_node, *values])
        raise LayerError(f"the model has no value or node {name!r}", hint=f"one of {close}", name=name)
    value = real_form(value)
    axes = on_grid.get(value)
    if axes is None:
        rank = 0 if value.shape is None else len(value.shape)
        if rank < 3:
            raise LayerError(
                f"{name!r} has no spatial axes: Grad-CAM needs a value of shape (N, C, *space)",
                where=f"shape {'?' if value.shape is None else value.shape}",
                hint="a layer before the pooling or flattening: `onnx-gradcam inspect MODEL` lists them",
                name=name,
            )
        axes = tuple(range(rank))
    return Layer(value, axes, True, "named by the user")


def has_linear_head(nodes: Sequence[ir.Node], layer: ir.Value, score: ir.Value) -> bool:
    """Whether global average pooling and at most one linear layer are all that lies between ``layer`` and ``score``."""
    path = downstream(nodes, [layer]) & upstream(nodes, score)
    between = [n for n in nodes if layer not in n.outputs and any(v in path for v in n.outputs)]
    on_grid = grids(nodes)
    pools = [n for n in between if _is_global_average(n, on_grid)]
    linear = [n for n in between if _is_linear(n)]
    rest = [n for n in between if n not in pools and n not in linear]
    return len(pools) == 1 and len(linear) <= 1 and all(n.op_type in CARRYING for n in rest)


def _is_global_average(node: ir.Node, on_grid: dict[ir.Value, tuple[int, ...]]) -> bool:
    """Whether ``node`` is the mean over all of space, and over nothing else."""
    if node.op_type == "GlobalAveragePool":
        return True
    x = node.inputs[0] if node.inputs else None
    if x is None or x.shape is None or node.op_type not in ("AveragePool", "ReduceMean"):
        return False
    space = on_grid.get(x, tuple(range(len(x.shape))))[2:]
    if node.op_type == "AveragePool":
        return list(node.attributes["kernel_shape"].as_ints()) == [x.shape[k] for k in space]
    axes = ints_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return axes is not None and {k % len(x.shape) for k in axes} == set(space)


def _is_linear(node: ir.Node) -> bool:
    if node.op_type == "Conv":
        weight = node.inputs[1]
        pointwise = weight is not None and weight.shape is not None and all(d == 1 for d in weight.shape[2:])
        return pointwise and all(s == 1 for s in node.attributes.get_ints("strides", ()))
    return node.op_type in ("Gemm", "MatMul")
