"""The sessions of one explained model, and what they give for images and classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import RULES, Key, Rule
from onnx_gradcam.batches import batch_size, run_in_pieces
from onnx_gradcam.errors import ForwardMismatch
from onnx_gradcam.forward import differences, own_difference
from onnx_gradcam.gradient import (
    CLASS,
    INDEX,
    OWN,
    SCORE,
    Cut,
    GradientGraph,
    differentiate,
    forward_only,
    has_rows,
    split,
)
from onnx_gradcam.graph.load import Source
from onnx_gradcam.graph.quantization import is_quantized
from onnx_gradcam.graph.score import Score
from onnx_gradcam.runtime import Options, Session
from onnx_gradcam.scaling import run_scaled
from onnx_gradcam.scores import by_class
from onnx_gradcam.targets import TOP1, TopK


class Evaluation:
    """Opens sessions when they are first needed and keeps them warm.

    ``apart``: how far the gradient graph's outputs are from the deployed model's, where they are accepted although they
    differ. ``gradient_scale``: of the last gradients of a 16-bit model.
    """

    def __init__(
        self,
        source: Source,
        prepared: ir.Model,
        score: Score,
        layers: Sequence[str],
        image_input: str,
        options: Options,
        check_forward: bool,
        table: Mapping[Key, Rule] = RULES,
    ) -> None:
        self._source, self._prepared, self._score, self._layers = source, prepared, score, layers
        self._table = table
        self.score = score
        self._image_input, self._options = image_input, options
        self._batch = batch_size(prepared.graph, image_input)
        self._unchecked = check_forward
        self.gradient_scale: float | None = None
        self.apart: float | None = None

    def close(self) -> None:
        """Free the sessions; the next call opens them again."""
        for name in ("whole_session", "_halves", "_plain", "_deployed"):
            self.__dict__.pop(name, None)

    @property
    def providers(self) -> list[str]:
        """The execution providers in use, by full name."""
        for name in ("whole_session", "_plain"):
            if name in self.__dict__:
                return list(self.__dict__[name].providers)
        return list(self._halves[0].providers)

    @cached_property
    def whole(self) -> GradientGraph:
        """Forward and backward pass in one graph."""
        return differentiate(self._prepared, self._score, list(dict.fromkeys(self._layers)), self._table)

    @cached_property
    def whole_session(self) -> Session:
        """That of ``whole``."""
        return Session(self.whole.model, self._options)

    @cached_property
    def cut(self) -> Cut | None:
        """The forward and the backward half, or None where what passes between them is not cut image by image."""
        found = split(self.whole)
        return found if has_rows(found, self._image_input) else None

    @cached_property
    def _halves(self) -> tuple[Session, Session, tuple[str, ...]]:
        assert self.cut is not None
        return Session(self.cut.forward, self._options), Session(self.cut.backward, self._options), self.cut.boundary

    @cached_property
    def _plain(self) -> Session:
        return Session(forward_only(self._prepared, self._forward_names), self._options)

    @cached_property
    def _deployed(self) -> Session:
        names = [*self.output_names, *self._score.results]
        return Session(forward_only(self._prepared, names), self._options)

    @property
    def output_names(self) -> list[str]:
        """The deployed model's outputs."""
        return [v.name or "" for v in self._prepared.graph.outputs]

    @property
    def _forward_names(self) -> list[str]:
        given = {v.name for v in self._prepared.graph.inputs}
        explained = [name for name in self._layers if name not in given]
        return list(dict.fromkeys([*self.output_names, *self._score.results, *explained]))

    def evaluate(
        self, feeds: dict[str, np.ndarray], wanted: list[tuple[int, ...]] | TopK, needs_gradient: bool
    ) -> tuple[dict[str, Any], list[tuple[int, int]], dict[str, np.ndarray] | None]:
        """Forward results (one entry per image), the rows as (image, class), and gradients by layer (one per row)."""
        if self.apart is not None and isinstance(wanted, list):
            chosen = self._rows(wanted, self._deployed_results(feeds))
            wanted = [tuple(c for i, c in chosen if i == image) for image in range(len(wanted))]
        if not needs_gradient:
            results = self._run(self._plain, self._forward_names, feeds)
            return results, self._rows(wanted, results), None
        if isinstance(wanted, list) and all(len(w) == 1 for w in wanted):
            index = np.array([w[0] for w in wanted], np.int64)
            names = [*self._forward_names, SCORE, CLASS, *self.whole.gradients]
            results = self._scaled(lambda fed: self._run(self.whole_session, names, fed), {**feeds, INDEX: index})
            rows = [(i, int(c)) for i, c in enumerate(results[CLASS])]
            return results, rows, {n: results[n] for n in self.whole.gradients}
        if self.cut is None:
            first, second, passed = self._plain, self.whole_session, tuple(feeds)
            results = {**self._run(first, self._forward_names, feeds), **feeds}
        else:
            first, second, passed = self._halves
            results = self._run(first, list(dict.fromkeys([*self._forward_names, *passed])), feeds)
        rows = self._rows(wanted, results)
        images = np.array([i for i, _ in rows])
        again = {name: _take(results[name], images, len(feeds[self._image_input])) for name in passed}
        again[INDEX] = np.array([c for _, c in rows], np.int64)
        names = list(self.whole.gradients)
        gradients = self._scaled(lambda fed: run_in_pieces(second.run, names, fed, self._batch), again)
        return results, rows, gradients

    def _scaled(
        self, run: Callable[[dict[str, np.ndarray]], dict[str, Any]], feeds: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        """``run(feeds)``, with the gradients of a 16-bit model scaled on their way."""
        if not self.whole.is_scaled:
            return run(feeds)
        results, self.gradient_scale = run_scaled(run, self.whole.gradients, feeds)
        return results

    def _run(self, session: Session, names: Sequence[str], feeds: dict[str, np.ndarray]) -> dict[str, Any]:
        results = run_in_pieces(session.run, names, feeds, self._batch)
        given = {k: v for k, v in feeds.items() if k not in OWN}
        if self._unchecked:
            self._compare_forward(results, given)
            self._unchecked = False
        return results if self.apart is None else {**results, **self._deployed_results(given)}

    def _deployed_results(self, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
        """Outputs and score of the model in which nothing else is exposed."""
        return run_in_pieces(self._deployed.run, self._deployed.outputs, feeds, self._batch)

    def _compare_forward(self, results: dict[str, Any], feeds: dict[str, np.ndarray]) -> None:
        """Once: the outputs against the untouched model.

        Exposing values of a quantized model can take kernels apart, which round otherwise. What the runtime's own
        optimisations do to such a model is accepted: outputs and prediction are then taken from the model as deployed.
        """
        found = {name: results[name] for name in self.output_names}
        apart = [d for d in differences(self._source, self._options, found, feeds, self._batch) if not d.ok]
        if not apart:
            return
        worst = max(apart, key=lambda d: d.error)
        allowed = worst.limit
        if is_quantized(self._prepared.graph):
            allowed += own_difference(self._source, self._options, feeds, self._batch)
            same = np.array_equal(*(self._ranking(r).argmax(axis=1) for r in (results, self._deployed_results(feeds))))
            if same and worst.error <= allowed:
                self.apart = worst.error
                return
        raise ForwardMismatch(
            f"output {worst.output!r} differs from the deployed model's by {worst.error:.2g} of its largest value",
            where=f"allowed: {allowed:.2g} and the same prediction, on the first input explained",
            hint="please report the model; check_forward=False goes on at your own risk",
            output=worst.output,
            error=worst.error,
        )

    def _rows(self, wanted: list[tuple[int, ...]] | TopK, results: dict[str, Any]) -> list[tuple[int, int]]:
        ranking = self._ranking(results)
        if isinstance(wanted, TopK):
            order = np.argsort(-ranking, axis=1, kind="stable")[:, : wanted.k]
            return [(i, int(c)) for i, row in enumerate(order) for c in row]
        best = ranking.argmax(axis=1)
        return [(i, int(best[i]) if c == TOP1 else c) for i, w in enumerate(wanted) for c in w]

    def _ranking(self, results: dict[str, Any]) -> npt.NDArray[Any]:
        """(N, K), by which classes are ranked."""
        dense = self._score.dense
        found: npt.NDArray[Any]
        if dense is None:
            found = by_class(self._score, results[self._score.value.name or ""])
        else:
            found = results[dense.ranking.name or ""]
        return found


def _take(array: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """The rows of an array with one row per image; an input without a batch axis is the same for all."""
    return array[rows] if array.ndim and len(array) == count else array
