"""A score whose tensors stand in a graph: what the kinds of targets are written with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnx_gradcam.anatomy.score import Score
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.names import DENSE_SCORE, values_by_name
from onnx_gradcam.targets.dense import DenseTensors, write_dense


@dataclass(frozen=True)
class WrittenScore:
    """A score and its tensors in a graph.

    Attributes:
        described: the score.
        value: the score tensor; (N, K) for a dense score, else the model's own value.
        dense: the values that go with a dense score; None for a classifier and a regression.
    """

    described: Score
    value: Value
    dense: DenseTensors | None = None

    @property
    def kind(self) -> str:
        """Return the kind of the score, as ``Score.kind``."""
        return self.described.kind

    @property
    def nature(self) -> str:
        """Return what the numbers are, as ``Score.nature``."""
        return self.described.nature

    @property
    def class_axis(self) -> int | None:
        """Return the axis of the classes; None for a single number for each image."""
        return self.described.class_axis

    @property
    def activation(self) -> str:
        """Return the squashing operator that was walked back over, "" for none."""
        return self.described.activation

    @property
    def count(self) -> int:
        """Return the number of classes."""
        return self.described.count

    @property
    def results(self) -> tuple[str, ...]:
        """Return the names of the values that a run has to return."""
        beside = () if self.dense is None else self.dense.results
        return tuple(v.name or "" for v in (self.value, *beside))

    @property
    def values(self) -> tuple[Value, ...]:
        """Return all values that go with the score."""
        return (self.value,) if self.dense is None else (self.value, *self.dense.values)

    def on(self, values: Mapping[str, Value]) -> WrittenScore:
        """Return the same score in a copy of the graph, whose values are given by name."""
        dense = None if self.dense is None else self.dense.on(values)
        return replace(self, value=values[self.value.name or ""], dense=dense)


def write_score(prepared: ir.Model, score: Score) -> tuple[ir.Model, WrittenScore]:
    """Return a model that holds the tensors of a score, and the score in it.

    A classifier and a regression hold theirs already: the model is returned as it is. For a dense score they are
    written into a copy.

    Args:
        prepared: the model, as ``prepare`` returns it; it is left as it is.
        score: its score, as ``find_score`` returns it.
    """
    if score.dense is None:
        return prepared, WrittenScore(score, score.value)
    model = prepared.clone()
    value, dense = write_dense(Builder(model.graph, DENSE_SCORE), score.dense, values_by_name(model.graph))
    return model, WrittenScore(score, value, dense)
