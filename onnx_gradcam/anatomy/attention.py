"""Find what the tokens of every block look at, and which of them are read in the end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.positions import KEEPS_POSITIONS, Positions, SpatialLayout, follow
from onnx_gradcam.anatomy.tokens import RESIDUAL_SUMS, TokenGrid, TokenPositions, TokenStream
from onnx_gradcam.errors import LayerError
from onnx_gradcam.graph.builder import static_dims
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import Steps, between, spread, steps_of
from onnx_gradcam.graph.names import values_by_name
from onnx_gradcam.graph.operators import COPIES

FACTORS = frozenset(("MatMul", "FusedMatMul"))
WAY_OUT = "a method that looks at no attention map: 'gradcam', 'eigencam', 'reciprocam'"


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """The attention maps of a network of tokens, by the names of their values.

    Attributes:
        maps: of each block the Softmax of Q·Kᵀ, (N, heads, T, T) or (N · heads, T, T).
        behind: of each block its tokens.
        layout: how tokens become (N, C, *space).
        read: (T,) how much the score reads each token behind the last block; it adds up to 1.
    """

    maps: tuple[str, ...]
    behind: tuple[str, ...]
    layout: SpatialLayout
    read: np.ndarray


def attention_maps(
    graph: ir.Graph, score: str, sizes: Mapping[str, Sequence[int]], grid: TokenGrid | None = None
) -> AttentionMaps:
    """Return the attention maps of a network whose blocks all look at the same tokens.

    Args:
        graph: a prepared graph, in which attention is written out.
        score: the name of the score tensor.
        sizes: the shape of each input by name.
        grid: the grid of tokens that the user names; None: it is found by following the graph.

    Raises:
        LayerError: there are no such blocks; it says what there is, and which methods remain.
    """
    positions = TokenPositions(graph, sizes)
    nodes = list(positions.graph)
    values = values_by_name(positions.graph)
    streams = positions.streams()
    if not streams:
        raise _refusal("no block of tokens was found in this network", "the score is computed without attention")
    steps = steps_of(nodes)
    layout = _common_layout(streams, grid)
    tokens = _sizes_of(values[streams[-1].value.name or ""])[layout.axes[2]]
    maps = [_map_of(steps, values, stream, tokens, k) for k, stream in enumerate(streams, start=1)]
    last = _end(nodes, steps, values[streams[-1].after.name or ""])
    _require_one_way(steps, maps, last, values[score])
    behind = [*(values[stream.value.name or ""] for stream in streams[1:]), last]
    read = _read(nodes, steps, last, layout, values[score], tokens)
    return AttentionMaps(_names(maps), _names(behind), layout, read)


def _names(values: Iterable[ir.Value]) -> tuple[str, ...]:
    return tuple(v.name or "" for v in values)


def _refusal(what: str, where: str) -> LayerError:
    return LayerError(what, where=where, hint=WAY_OUT)


def _sizes_of(value: ir.Value) -> tuple[int, ...]:
    return static_dims(value) or ()


def _common_layout(streams: Sequence[TokenStream], grid: TokenGrid | None) -> SpatialLayout:
    """Return the layout of the tokens, the same in all blocks."""
    layouts = [stream.layout if grid is None else grid.layout(stream.value) for stream in streams]
    last = layouts[-1]
    if last is None:
        raise _refusal(
            f"how the tokens of {streams[-1].value.name!r} lie in the image could not be found",
            "name their grid: --grid HxW, or HxW+1 with one token before it",
        )
    if last.token_grid is None:
        raise _refusal(
            f"the tokens of {streams[-1].value.name!r} keep the axes of the image: they look at each other in windows, "
            "or in part",
            "attention over all tokens is needed",
        )
    for layout, stream in zip(layouts, streams, strict=True):
        grid_of = None if layout is None else layout.token_grid
        if (
            layout is None
            or layout.axes != last.axes
            or grid_of is None
            or not np.array_equal(grid_of, last.token_grid)
        ):
            raise _refusal(
                "the blocks of this network have different tokens: attention cannot be followed from one to the next",
                f"those of {stream.value.name!r} and of {streams[-1].value.name!r}",
            )
    return last


def _map_of(steps: Steps, values: Mapping[str, ir.Value], stream: TokenStream, tokens: int, number: int) -> ir.Value:
    """Return the attention map of a block: a Softmax over all tokens, of all tokens, that a product takes as it is."""
    inside = between(steps, [values[stream.value.name or ""]], values[stream.after.name or ""])
    weights = sorted((v for v in inside if _weighs(v)), key=lambda v: steps.order[v])
    whole = [v for v in weights if _sizes_of(v)[-2:] == (tokens, tokens) and len(_sizes_of(v)) in (3, 4)]
    if len(whole) == 1:
        return whole[0]
    shapes = ", ".join("×".join(map(str, _sizes_of(v))) for v in weights) or "none"
    raise _refusal(
        f"block {number} has no attention map over all {tokens} tokens: tokens look at each other in windows, in part, "
        "or without a Softmax",
        f"between {stream.value.name!r} and {stream.after.name!r}; attention maps there: {shapes}",
    )


def _weighs(value: ir.Value) -> bool:
    """Tell whether a value is a Softmax along its last axis that is the first factor of a product."""
    node = value.producer()
    last = len(_sizes_of(value)) - 1
    if node is None or node.op_type != "Softmax" or node.attributes.get_int("axis", -1) not in (-1, last):
        return False
    same = [value]
    for current in same:
        for reader, index in current.uses():
            if reader.op_type in FACTORS and index == 0 and not reader.attributes.get_int("transA", 0):
                return True
            same += reader.outputs if reader.op_type in COPIES else ()
    return False


def _end(nodes: Sequence[ir.Node], steps: Steps, after: ir.Value) -> ir.Value:
    """Return the tokens behind the last block: its last sum of two streams of one shape, and of a bias behind it."""
    behind = spread([after], steps.after)
    end = after
    for node in nodes:
        value = node.outputs[-1]
        terms = [v for v in node.inputs if v in behind and _sizes_of(v) == _sizes_of(after)]
        if node.op_type in RESIDUAL_SUMS and len(terms) > 1 and _sizes_of(value) == _sizes_of(after):
            end = value
    while (biased := _plus_bias(end)) is not None:
        end = biased
    return end


def _plus_bias(value: ir.Value) -> ir.Value | None:
    """Return the sum of a value and a constant where nothing else reads the value, else None."""
    uses = list(value.uses())
    node = uses[0].node if len(uses) == 1 else None
    if node is None or node.op_type != "Add" or all(constant(v) is None for v in node.inputs if v is not None):
        return None
    return node.outputs[0]


def _require_one_way(steps: Steps, maps: Sequence[ir.Value], end: ir.Value, score: ir.Value) -> None:
    """Raise ``LayerError`` where tokens reach the score without passing ``end``."""
    around = spread([score], steps.before, lambda value: value is not end)
    if passed := [v.name for v in maps if v in around]:
        raise _refusal(
            f"the score reads more than the tokens behind the last block, {end.name!r}",
            f"attention {passed[0]!r} reaches it by another way",
        )


def _read(
    nodes: Sequence[ir.Node], steps: Steps, end: ir.Value, layout: SpatialLayout, score: ir.Value, tokens: int
) -> np.ndarray:
    """Return how much the score reads each token of ``end``, (tokens,).

    Tokens are followed to where they meet: in a mean, in a product, or where tokens are added to others. Each such
    meeting counts the same, and so do all tokens in it; where none meet, it is those that arrive at the score.
    """
    path = between(steps, [end], score)
    inner = [node for node in nodes if end not in node.outputs and not path.isdisjoint(node.outputs)]
    positions = follow(inner, {end: layout.axes}, [end])
    meetings = [_tokens_in(positions, v) for node in inner for v in _meeting(node, positions, path)]
    return _shares(list(dict.fromkeys([*meetings, _tokens_in(positions, score)])), tokens)


def _meeting(node: ir.Node, positions: Mapping[ir.Value, Positions], path: Collection[ir.Value]) -> Sequence[ir.Value]:
    """Return the inputs of a node in which tokens meet others: none where it leaves every token by itself."""
    placed = [v for v in node.inputs if v is not None and v in path and positions.get(v)]
    is_apart = len({_tokens_in(positions, v) for v in placed}) < 2 or node.op_type not in KEEPS_POSITIONS
    return () if is_apart and any(positions.get(v) for v in node.outputs) else placed


def _tokens_in(positions: Mapping[ir.Value, Positions], value: ir.Value | None) -> tuple[int, ...]:
    """Return the numbers of the tokens whose elements a value holds."""
    if value is None or not positions.get(value):
        return ()
    along = np.unique(positions[value][1])
    return tuple(int(k) for k in along[~np.isnan(along)])


def _shares(meetings: Sequence[tuple[int, ...]], tokens: int) -> np.ndarray:
    """Return the mean over meetings of the mean over their tokens, (tokens,); all tokens alike where there are none."""
    shares = np.zeros(tokens, np.float32)
    for meeting in [m for m in meetings if m] or [tuple(range(tokens))]:
        shares[list(meeting)] += 1 / len(meeting)
    return np.asarray(shares / shares.sum(), np.float32)
