"""A layer that can be explained, and the verdict on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.positions import SpatialLayout
from onnx_gradcam.anatomy.score import Score
from onnx_gradcam.anatomy.tokens import TokenGrid
from onnx_gradcam.graph.dims import shown_dim

COARSE = 16  # positions of a map that is too coarse to say much


class Verdict(Enum):
    """Why the automatic choice takes a layer, or why it does not."""

    LAST_STAGE = auto()
    LAST_BLOCK = auto()
    BOTTLENECK = auto()
    LEVEL = auto()
    ONLY_LEVEL = auto()
    PARALLEL = auto()
    NAMED = auto()
    ONE_POSITION = auto()
    BYPASSED = auto()
    SHALLOWER = auto()
    NO_TOKEN_GRID = auto()


TAKEN = frozenset(
    (
        Verdict.LAST_STAGE,
        Verdict.LAST_BLOCK,
        Verdict.BOTTLENECK,
        Verdict.LEVEL,
        Verdict.ONLY_LEVEL,
        Verdict.PARALLEL,
        Verdict.NAMED,
    )
)
REASONS: Mapping[Verdict, str] = {
    Verdict.LAST_STAGE: "the end of the last convolutional stage",
    Verdict.LAST_BLOCK: "the input of the last block of tokens",
    Verdict.BOTTLENECK: "the deepest value of lowest resolution",
    Verdict.LEVEL: "the deepest value that feeds level {level}",
    Verdict.ONLY_LEVEL: "the deepest value that feeds the scores",
    Verdict.PARALLEL: "the end of one of several parallel parts; all paths to the score go through one of these",
    Verdict.NAMED: "named by the user",
    Verdict.ONE_POSITION: "has one spatial position only",
    Verdict.BYPASSED: "some paths to the score go around it",
    Verdict.SHALLOWER: "a deeper one is there",
    Verdict.NO_TOKEN_GRID: "the grid of its tokens was not found: name it with --grid HxW",
}


@dataclass(frozen=True)
class Layer:
    """A value of the model that can be explained.

    Attributes:
        value: the ONNX value.
        axes: for each of (N, C, *space) the axis of the value that holds it; with a token grid for (N, C, tokens).
        verdict: why "auto" takes the layer, or why not.
        token_grid: (*space) the index of the token at each position of the grid, for an image of nominal size where
            ``is_open``; None for a value with spatial axes of its own.
        is_open: whether the token grid depends on the size of the image, which is not known before the run.
        level: the level of a detector that the layer feeds; None where there are no levels.
        mirrored: the spatial axes, counted from 0, along which the layer sees the image mirrored.
        note: what the user should know of a layer that is taken; "" for nothing.
        caution: the same in a few words, where it changes how a picture must be read; "" for nothing.
    """

    value: ir.Value
    axes: tuple[int, ...]
    verdict: Verdict
    token_grid: np.ndarray | None = field(default=None, compare=False)
    is_open: bool = False
    level: int | None = None
    note: str = field(default="", compare=False)
    mirrored: tuple[int, ...] = ()
    caution: str = field(default="", compare=False)

    @property
    def chosen(self) -> bool:
        """Return whether the layer is explained: "auto" takes it, or the user named it."""
        return self.verdict in TAKEN

    @property
    def positions(self) -> int | None:
        """Return how many spatial positions it has; None where that is not known before the run."""
        space = [d for d in self.dims[2:] if isinstance(d, int)]
        return math.prod(space) if len(space) == len(self.dims) - 2 else None

    @property
    def reason(self) -> str:
        """Return the verdict in words."""
        return REASONS[self.verdict].format(level=self.level)

    def arrange(self, array: Any) -> Any:
        """Return ``array``, of the value's shape, as (N, C, *space), as the image lies."""
        arranged = SpatialLayout(self.axes, self.token_grid).arrange(array)
        return np.flip(arranged, tuple(k + 2 for k in self.mirrored)) if self.mirrored else arranged

    def restore(self, arranged: np.ndarray, array: np.ndarray) -> np.ndarray:
        """Return copies of ``array``, of the value's shape for one image, that hold ``arranged`` (B, C, *space)."""
        as_seen = np.flip(arranged, tuple(k + 2 for k in self.mirrored)) if self.mirrored else arranged
        return SpatialLayout(self.axes, self.token_grid).restore(as_seen, array)

    @property
    def name(self) -> str:
        """Return the name of the ONNX value."""
        return self.value.name or ""

    @property
    def dims(self) -> tuple[int | str, ...]:
        """Return the shape, channels first; a string where it is not known before the run."""
        shape = self.value.shape
        assert shape is not None
        sizes = [d if isinstance(d, int) else shown_dim(d) for d in (shape[k] for k in self.axes)]
        if self.token_grid is not None:
            sizes[2:] = ["?"] * self.token_grid.ndim if self.is_open else self.token_grid.shape
        return tuple(sizes)


def coarseness(layer: Layer, finer: Layer | None) -> str:
    """Return a sentence where the map of a layer is coarse, with the name of the next finer layer; "" where it is not.

    Args:
        layer: the layer that is taken.
        finer: the next finer layer; None where there is none.
    """
    if layer.positions is None or layer.positions >= COARSE or len(layer.dims) < 4:
        return ""
    size = "×".join(map(str, layer.dims[2:]))
    way_out = f"; the next finer layer: --layer {finer.name}" if finer is not None else ""
    return f"the map of {layer.name!r} has {size} positions only, so that it is coarse{way_out}"


@dataclass(frozen=True)
class LayerSearch:
    """The graph and the score, as the finders of layers read them.

    Attributes:
        graph: a prepared graph.
        score: its score.
        token_grid: the grid of tokens that the user names; None: it is found by following the graph.
        image: the name of the input that is explained; None: any.
        branch: of a detector, as in ``DenseScores.branch``.
    """

    graph: ir.Graph
    score: Score
    token_grid: TokenGrid | None = None
    image: str | None = None
    branch: str = "logits"

    @cached_property
    def nodes(self) -> list[ir.Node]:
        """Return the nodes of the graph, in topological order."""
        return list(self.graph)

    @cached_property
    def sinks(self) -> tuple[ir.Value, ...]:
        """Return the values in which the paths to what is explained end."""
        dense = self.score.dense
        return self.score.sinks if dense is None else dense.branch_sources(self.branch)
