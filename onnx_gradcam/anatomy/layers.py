"""Candidate target layers, ranked, and the automatic choice with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.dense.layers import taken
from onnx_gradcam.anatomy.dense.scores import Dense
from onnx_gradcam.anatomy.grids import CONVOLUTIONS, POOLS, grids
from onnx_gradcam.anatomy.module_paths import modules
from onnx_gradcam.anatomy.positions import Layout
from onnx_gradcam.anatomy.tokens import Grid, Stream, Tokens, is_open, may_have_tokens
from onnx_gradcam.errors import LayerError, nearest
from onnx_gradcam.graph.builder import ints_of
from onnx_gradcam.graph.flow import beginnings, carriers, downstream, upstream
from onnx_gradcam.graph.quantization import real_form

LAST_STAGE = "the end of the last convolutional stage"
LAST_BLOCK = "the input of the last block of tokens"
NO_GRID = "the grid of its tokens was not found: name it with --grid HxW"
CARRYING = frozenset("Flatten Reshape Squeeze Unsqueeze Transpose Identity Dropout Cast Add".split())


@dataclass(frozen=True)
class Layer:
    """A value that can be explained.

    ``axes``: for each of (N, C, *space) the axis of the value that holds it; with ``tokens``, for (N, C, tokens), and
    ``tokens`` (*space) holds the index of the token at each place of the grid, for an image of nominal size where
    ``is_open``. ``chosen``: whether "auto" takes it; ``reason``: why, or why not.
    """

    value: ir.Value
    axes: tuple[int, ...]
    chosen: bool
    reason: str
    tokens: np.ndarray | None = field(default=None, compare=False)
    is_open: bool = False

    def arrange(self, array: Any) -> Any:
        """An array of the value's shape as (N, C, *space)."""
        return Layout(self.axes, self.tokens).arrange(array)

    @property
    def name(self) -> str:
        """The name of the ONNX value."""
        return self.value.name or ""

    @property
    def dims(self) -> tuple[int | str, ...]:
        """The shape, channels first; a string where it is not known before the run."""
        shape = self.value.shape
        assert shape is not None
        found = [d if isinstance(d, int) else (d.value or "?") for d in (shape[k] for k in self.axes)]
        if self.tokens is not None:
            found[2:] = ["?"] * self.tokens.ndim if self.is_open else self.tokens.shape
        return tuple(found)


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


def candidates(
    graph: ir.Graph,
    score: ir.Value,
    grid: Grid | None = None,
    image: str | None = None,
    dense: Dense | None = None,
    branch: str = "logits",
) -> list[Layer]:
    """Ends of convolutional blocks and beginnings of blocks of tokens on the way to ``score``, the deepest first; but
    what "auto" takes comes first.

    A convolutional block begins with a convolution and ends with the last value that keeps its grid. A block of tokens
    begins with the value that its first normalisation reads: behind the last one, the score may read the class token
    alone. Taken is the deepest with more than one spatial position that every path from the input called ``image``
    (None: from any that is convolved) to the score goes through.
    """
    if dense is not None and (found := taken(graph, score, dense, branch)):
        return [Layer(real_form(value), axes, True, reason) for value, axes, reason in found]
    nodes = list(graph)
    on_grid = grids(nodes)
    streams: dict[ir.Value, Stream] = {}
    if may_have_tokens(nodes, on_grid):
        tokens = Tokens(graph)
        on_grid, streams = tokens.on_grid(), {s.value: s for s in tokens.streams()}
    placed = {*on_grid, *streams}
    images = [v for v in graph.inputs if image in (None, v.name)]
    begin = [v for v in beginnings(nodes, images) if downstream(nodes, [v]) & placed]
    needed = set(bottlenecks(nodes, begin, score))
    path = downstream(nodes, begin) & upstream(nodes, score)
    depth = {v: k for k, node in enumerate(nodes) for v in node.outputs}
    ends = [v for v in on_grid if v in path and _ends_block(v, on_grid, path)]
    ends = [v for v in ends if v not in _behind_tokens(nodes, [s for s in streams.values() if s.value in needed])]
    layers: list[Layer] = []
    for value in sorted({*ends, *(v for v in streams if v in path)}, key=lambda v: depth[v], reverse=True):
        shown = real_form(value)
        if any(layer.value is shown for layer in layers):
            continue
        if value in streams:
            layout = streams[value].layout if grid is None else grid.layout(shown)
        else:
            layout = Layout(on_grid[value])
        axes = tuple(range(len(value.shape or ()))) if layout is None else layout.axes
        places = None if layout is None else layout.tokens
        chosen = False
        if places is None and not _has_space(value, axes):
            reason = "has one spatial position only"
        elif value not in needed:
            reason = "some paths to the score go around it"
        elif any(layer.chosen or layer.reason == NO_GRID for layer in layers):
            reason = "a deeper one is there"
        elif layout is None:
            reason = NO_GRID
        else:
            chosen, reason = True, LAST_BLOCK if value in streams else LAST_STAGE
        layers.append(Layer(shown, axes, chosen, reason, places, _is_open(graph, places, grid)))
    return sorted(layers, key=lambda layer: not layer.chosen)


def _is_open(graph: ir.Graph, tokens: np.ndarray | None, grid: Grid | None) -> bool:
    return tokens is not None and grid is None and is_open(graph)


def at_size(graph: ir.Graph, layer: Layer, sizes: Mapping[str, Sequence[int]]) -> Layer:
    """``layer`` with its tokens where they lie in inputs of these sizes. Raises ``LayerError`` where it is no grid."""
    if not layer.is_open:
        return layer
    layout = Tokens(graph, sizes).layout(layer.name)
    if layout is None:
        raise LayerError(
            f"the tokens of {layer.name!r} are no grid that could be found for inputs of {dict(sizes)}",
            where=f"shape {layer.value.shape}",
            hint="--grid HxW, or another size",
            name=layer.name,
        )
    return replace(layer, axes=layout.axes, tokens=layout.tokens)


def _behind_tokens(nodes: Sequence[ir.Node], needed: Sequence[Stream]) -> set[ir.Value]:
    """The values behind the last block of tokens, up to the next convolution."""
    if not needed:
        return set()
    behind = downstream(nodes, [needed[-1].after])
    convolved = [n.outputs[0] for n in nodes if n.op_type in CONVOLUTIONS and n.inputs[0] in behind]
    return behind - downstream(nodes, convolved)


def _ends_block(value: ir.Value, on_grid: dict[ir.Value, tuple[int, ...]], path: set[ir.Value]) -> bool:
    """Whether something other than a pointwise operator on the same grid reads ``value``."""
    readers = [node for node in value.consumers() if any(v in path for v in node.outputs)]
    return not readers or any(
        not any(v in on_grid for v in node.outputs) or node.op_type in CONVOLUTIONS for node in readers
    )


def _has_space(value: ir.Value, axes: tuple[int, ...]) -> bool:
    assert value.shape is not None
    return any(value.shape[k] != 1 for k in axes[2:])


def choose(
    graph: ir.Graph,
    score: ir.Value,
    names: Sequence[str],
    grid: Grid | None = None,
    image: str | None = None,
    dense: Dense | None = None,
    branch: str = "logits",
) -> list[Layer]:
    """The target layers: by value or node name or module path, or the automatic choice for ``["auto"]``.

    ``grid``: how the tokens of these layers lie; None: it is found by following the graph. ``image``: the input that is
    explained; None: all. ``branch``: of a detector, as in ``Dense.branch``. Raises ``LayerError`` for an unknown name,
    where no layer is found, and for tokens whose grid is not known.
    """
    if list(names) == ["auto"]:
        ranked = candidates(graph, score, grid, image, dense, branch)
        if not ranked or not ranked[0].chosen:
            _refuse_broken_path(graph, score)
            _refuse_unplaced_tokens(ranked)
            raise LayerError(
                "no convolutional stage was found between the input and the score",
                where=f"score {score.name!r}",
                hint="name a value of shape (N, C, H, W) with --layer NAME (`onnx-gradcam inspect MODEL`), or a method "
                "of the input (--method saliency, integrated-gradients)",
            )
        return [layer for layer in ranked if layer.chosen]
    on_grid = grids(list(graph), begin=CONVOLUTIONS | POOLS)
    return [_named(graph, name, on_grid, grid) for name in names]


def _refuse_unplaced_tokens(ranked: Sequence[Layer]) -> None:
    for layer in ranked:
        if layer.reason == NO_GRID:
            raise LayerError(
                f"the tokens of {layer.name!r} are not a grid that could be found by following the graph",
                where=f"shape {layer.value.shape}, {LAST_BLOCK}",
                hint="--grid HxW, or HxW+1 with one token before it; or another layer: --layer NAME",
                name=layer.name,
            )


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


def _named(graph: ir.Graph, name: str, on_grid: dict[ir.Value, tuple[int, ...]], grid: Grid | None) -> Layer:
    values = {k: v for k, v in ir.convenience.create_value_mapping(graph).items() if not v.is_initializer()}
    by_node = {node.name: node.outputs[0] for node in graph if node.name}
    value = values.get(name) or by_node.get(name)
    if value is None:
        found = modules(graph)
        value = found.value(name)
    if value is None:
        close = nearest(name, [*found.outputs, *(v.name or "" for v in on_grid), *by_node, *values])
        raise LayerError(f"the model has no value, node or module {name!r}", hint=f"one of {close}", name=name)
    value = real_form(value)
    if value in on_grid and grid is None:
        layout = Layout(on_grid[value])
    else:
        layout = _placed(graph, value, name) if grid is None else grid.layout(value)
    opened = _is_open(graph, layout.tokens, grid)
    return Layer(value, layout.axes, True, "named by the user", layout.tokens, opened)


def _placed(graph: ir.Graph, value: ir.Value, name: str) -> Layout:
    """The layout of a value that no convolution's grid reaches."""
    rank = 0 if value.shape is None else len(value.shape)
    if rank < 3:
        raise LayerError(
            f"{name!r} has no spatial axes: Grad-CAM needs a value of shape (N, C, *space)",
            where=f"shape {'?' if value.shape is None else value.shape}",
            hint="a layer before the pooling or flattening: `onnx-gradcam inspect MODEL` lists them",
            name=name,
        )
    layout = Tokens(graph).layout(value.name)
    if layout is None and rank == 3:
        raise LayerError(
            f"how the tokens of {name!r} lie in the image could not be found by following the graph",
            where=f"shape {value.shape}",
            hint="--grid HxW, or HxW+1 with one token before it",
            name=name,
        )
    return layout or Layout(tuple(range(rank)))


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
