"""Candidate target layers, ranked, and the choice of those that are explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnx_gradcam.anatomy.dense.layers import bottleneck_layers, level_layers
from onnx_gradcam.anatomy.grids import Axes, grids
from onnx_gradcam.anatomy.layer import REASONS, Layer, LayerSearch, Verdict, coarseness
from onnx_gradcam.anatomy.module_paths import modules
from onnx_gradcam.anatomy.positions import SpatialLayout
from onnx_gradcam.anatomy.score import Score
from onnx_gradcam.anatomy.stages import classifier_layers, depends_on_size
from onnx_gradcam.anatomy.tokens import TokenGrid, TokenPositions
from onnx_gradcam.errors import LayerError, nearest
from onnx_gradcam.graph.flow import beginnings, carriers, downstream
from onnx_gradcam.graph.names import values_by_name
from onnx_gradcam.graph.operators import CONVOLUTIONS, POOLINGS
from onnx_gradcam.graph.quantization import real_form

Finder = Callable[[LayerSearch], list[Layer]]


def candidates(
    graph: ir.Graph,
    score: Score,
    grid: TokenGrid | None = None,
    image: str | None = None,
    branch: str = "logits",
) -> list[Layer]:
    """Return the layers that can be explained, those that "auto" takes first.

    Args:
        graph: a prepared graph.
        score: its score.
        grid: how tokens lie in the image; None: it is found by following the graph.
        image: the name of the input that is explained; None: any that is convolved.
        branch: of a detector, as in ``DenseScores.branch``.
    """
    search = LayerSearch(graph, score, grid, image, branch)
    for find in _finders(score):
        if layers := find(search):
            return layers
    return _with_coarseness(classifier_layers(search))


def _with_coarseness(ranked: Sequence[Layer]) -> list[Layer]:
    """Return the same layers; one that is taken says that its map is coarse, and which one is the next finer."""
    return [replace(x, note=x.note or coarseness(x, _next_finer(x, ranked))) if x.chosen else x for x in ranked]


def _next_finer(layer: Layer, ranked: Sequence[Layer]) -> Layer | None:
    count = layer.positions or 0
    finer = (x for x in ranked if x.verdict is Verdict.SHALLOWER and x.positions is not None and x.positions > count)
    return next(finer, None)


def _finders(score: Score) -> tuple[Finder, ...]:
    """Return the finders of the family of networks that a score tells, before that of classifiers."""
    if score.dense is None:
        return ()
    return (level_layers,) if score.dense.detector else (bottleneck_layers,)


def choose(
    graph: ir.Graph,
    score: Score,
    names: Sequence[str],
    grid: TokenGrid | None = None,
    image: str | None = None,
    branch: str = "logits",
) -> list[Layer]:
    """Return the target layers: by value or node name or module path, or the automatic choice for ``["auto"]``.

    ``graph``, ``score``, ``grid``, ``image`` and ``branch``: see ``candidates``.

    Raises:
        LayerError: for an unknown name, where no layer is found, and for tokens whose grid is not known.
    """
    if list(names) != ["auto"]:
        on_grid = grids(list(graph), begin=CONVOLUTIONS | POOLINGS)
        return [_named(graph, name, on_grid, grid) for name in names]
    ranked = candidates(graph, score, grid, image, branch)
    if not ranked or not ranked[0].chosen:
        _refuse_broken_path(graph, score)
        _refuse_unplaced_tokens(ranked)
        _refuse_bypassed_layers(ranked)
        raise LayerError(
            "no convolutional stage was found between the input and the score",
            where=f"score {score.value.name!r}",
            hint="name a value of shape (N, C, H, W) with --layer NAME (`onnx-gradcam inspect MODEL`), or a method "
            "of the input (--method saliency, integrated-gradients)",
        )
    return [layer for layer in ranked if layer.chosen]


def at_size(graph: ir.Graph, layer: Layer, sizes: Mapping[str, Sequence[int]]) -> Layer:
    """Return ``layer`` with the token grid that it has for inputs of these sizes.

    Raises:
        LayerError: its tokens are no grid that could be found.
    """
    if not layer.is_open:
        return layer
    layout = TokenPositions(graph, sizes).layout(layer.name)
    if layout is None:
        raise LayerError(
            f"the tokens of {layer.name!r} are no grid that could be found for inputs of {dict(sizes)}",
            where=f"shape {layer.value.shape}",
            hint="--grid HxW, or another size",
            name=layer.name,
        )
    return replace(layer, axes=layout.axes, token_grid=layout.token_grid)


def _refuse_unplaced_tokens(ranked: Sequence[Layer]) -> None:
    """Raise ``LayerError`` for tokens without a grid, naming the deepest layer before them that can be explained."""
    for layer in ranked:
        if layer.verdict is Verdict.NO_TOKEN_GRID:
            placed = next((x.name for x in ranked if x.verdict is Verdict.SHALLOWER), "NAME")
            is_one_row = len(layer.value.shape or ()) == 3
            raise LayerError(
                f"the tokens of {layer.name!r} are not a grid that could be found by following the graph",
                where=f"shape {layer.value.shape}, {REASONS[Verdict.LAST_BLOCK]}",
                hint=("--grid HxW, or HxW+1 with one token before it; or another layer: " if is_one_row else "")
                + f"--layer {placed}",
                name=layer.name,
            )


def _refuse_bypassed_layers(ranked: Sequence[Layer]) -> None:
    """Raise ``LayerError``, naming the deepest, where there are layers and a path goes around all of them."""
    for layer in ranked:
        if layer.verdict is Verdict.BYPASSED:
            raise LayerError(
                "some paths to the score go around every layer",
                where=f"the deepest is {layer.name!r}",
                hint=f"its part of the score: --layer {layer.name}; or a method of the input (--method saliency)",
                name=layer.name,
            )


def _refuse_broken_path(graph: ir.Graph, score: Score) -> None:
    """Raise ``LayerError`` naming the operator where every differentiable path from the input ends before the score."""
    nodes = list(graph)
    reached = downstream(nodes, beginnings(nodes, graph.inputs))
    if any(sink in reached for sink in score.sinks):
        return
    ends = [n for n in nodes if any(v in reached for _, v in carriers(n)) and not any(v in reached for v in n.outputs)]
    quantized = any(n.op_type.startswith(("Quantize", "DynamicQuantize", "QLinear")) for n in nodes)
    raise LayerError(
        "no differentiable path leads from the input to the score",
        where=f"the first to end: node {ends[0].name!r} ({ends[0].op_type})" if ends else f"score {score.value.name!r}",
        hint="the float model that was quantized" if quantized else "another score: --score NAME",
        operators=tuple(sorted({n.op_type for n in ends})),
    )


def _named(graph: ir.Graph, name: str, on_grid: Mapping[ir.Value, Axes], grid: TokenGrid | None) -> Layer:
    value = real_form(_value_called(graph, name, on_grid))
    if grid is not None:
        layout = grid.layout(value)
    else:
        layout = SpatialLayout(on_grid[value]) if value in on_grid else _layout_off_grid(graph, value, name)
    opened = depends_on_size(graph, layout.token_grid, grid)
    return Layer(value, layout.axes, Verdict.NAMED, layout.token_grid, opened)


def _value_called(graph: ir.Graph, name: str, on_grid: Mapping[ir.Value, Axes]) -> ir.Value:
    """Return the value, the first output of the node, or what the module returns that is called ``name``."""
    values = {k: v for k, v in values_by_name(graph).items() if not v.is_initializer()}
    by_node = {node.name: node.outputs[0] for node in graph if node.name}
    value = values.get(name) or by_node.get(name)
    if value is not None:
        return value
    known = modules(graph)
    value = known.value(name)
    if value is None:
        close = nearest(name, [*known.outputs, *(v.name or "" for v in on_grid), *by_node, *values])
        raise LayerError(f"the model has no value, node or module {name!r}", hint=f"one of {close}", name=name)
    return value


def _layout_off_grid(graph: ir.Graph, value: ir.Value, name: str) -> SpatialLayout:
    """Return the layout of a value that no convolution's grid reaches."""
    rank = 0 if value.shape is None else len(value.shape)
    if rank < 3:
        raise LayerError(
            f"{name!r} has no spatial axes: Grad-CAM needs a value of shape (N, C, *space)",
            where=f"shape {'?' if value.shape is None else value.shape}",
            hint="a layer before the pooling or flattening: `onnx-gradcam inspect MODEL` lists them",
            name=name,
        )
    layout = TokenPositions(graph).layout(value.name)
    if layout is None and rank == 3:
        raise LayerError(
            f"how the tokens of {name!r} lie in the image could not be found by following the graph",
            where=f"shape {value.shape}",
            hint="--grid HxW, or HxW+1 with one token before it",
            name=name,
        )
    return layout or SpatialLayout(tuple(range(rank)))
