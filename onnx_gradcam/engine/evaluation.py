"""The sessions of one explained model, and what they give for images and classes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_gradcam.anatomy.score import Score
from onnx_gradcam.autodiff.rectifiers.gating import Gating
from onnx_gradcam.engine.batches import batch_size, run_in_pieces
from onnx_gradcam.engine.fidelity import differences, own_difference
from onnx_gradcam.engine.gradients import Gradients, gradients_in, joined
from onnx_gradcam.engine.passes import Backward, Passes
from onnx_gradcam.engine.program import Cut, GradientGraph, forward_only, read
from onnx_gradcam.engine.rows import Rows
from onnx_gradcam.engine.scaling import run_scaled
from onnx_gradcam.engine.scores import by_class
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.errors import ForwardMismatch
from onnx_gradcam.graph.load import Source
from onnx_gradcam.graph.names import SCALE_INPUT, TARGET_INDEX
from onnx_gradcam.graph.quantization import is_quantized
from onnx_gradcam.targets import (
    CLASS,
    TOP1,
    BoundTarget,
    ForwardPass,
    Kind,
    RowTarget,
    TopK,
    class_target,
    fixed_target,
)

Arrays = dict[str, np.ndarray]
Wanted = Sequence[tuple[int | BoundTarget | RowTarget, ...]] | TopK


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
        backward: Backward,
    ) -> None:
        self._source, self._prepared, self._score, self._layers = source, prepared, score, layers
        self.score = score
        self._image_input, self._options, self._rules_back = image_input, options, backward
        self._batch = batch_size(prepared.graph, image_input)
        self._inputs = frozenset(v.name for v in prepared.graph.inputs)
        self._unchecked = options.check_forward
        self._by_kind: dict[Kind, Passes] = {}
        self.gradient_scale: float | None = None
        self.apart: float | None = None

    def passes(self, kind: Kind = CLASS) -> Passes:
        """The graphs and sessions for targets of a kind."""
        if kind not in self._by_kind:
            common = self._prepared, self._score, self._layers, self._image_input, self._options
            self._by_kind[kind] = Passes(*common, self._rules_back, kind)
        return self._by_kind[kind]

    def close(self) -> None:
        """Free the sessions; the next call opens them again."""
        for each in self._by_kind.values():
            each.close()
        for name in ("_plain", "_deployed"):
            self.__dict__.pop(name, None)

    @property
    def whole(self) -> GradientGraph:
        """Forward and backward pass for classes, in one graph."""
        return self.passes().whole

    @property
    def gating(self) -> Gating:
        """The activations on the way back; they are the same for all kinds of targets."""
        held = next(iter(self._by_kind.values()), None) or self.passes()
        return held.whole.gating

    @property
    def cut(self) -> Cut | None:
        """The same in halves, or None where what passes between them is not cut image by image."""
        return self.passes().cut

    @property
    def whole_session(self) -> Session:
        """That of ``whole``."""
        return self.passes().whole_session

    @property
    def providers(self) -> list[str]:
        """The execution providers in use, by full name."""
        held = [session for each in self._by_kind.values() for session in each.open_sessions]
        return list((held[0] if held else self._plain).providers)

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
        self, feeds: Arrays, wanted: Wanted, needs_gradient: bool
    ) -> tuple[dict[str, Any], Rows, Gradients | None]:
        """Evaluate the model, and the gradients at the layers where they are needed.

        Args:
            feeds: arrays by the names of the model's inputs.
            wanted: for each image its classes, goals and aims; or the top k.
            needs_gradient: whether gradients are computed.

        Returns:
            The results of the forward pass by name, one entry per image; the rows as (image, class or aim), where aims
            hold the score that was computed for them; the gradients, one entry per row, None where none are needed.
        """
        if isinstance(wanted, TopK):
            return self._evaluate_classes(feeds, wanted, needs_gradient)
        classes = [tuple(w for w in several if isinstance(w, int)) for several in wanted]
        if [len(w) for w in classes] == [len(w) for w in wanted]:
            return self._evaluate_classes(feeds, classes, needs_gradient)
        goals = [tuple(_goal(w) for w in several) for several in wanted]
        return self._evaluate_goals(feeds, goals, needs_gradient)

    def _evaluate_classes(
        self, feeds: Arrays, wanted: list[tuple[int, ...]] | TopK, needs_gradient: bool
    ) -> tuple[dict[str, Any], Rows, Gradients | None]:
        if self.apart is not None and isinstance(wanted, list):
            chosen = self._rows(wanted, self._deployed_results(feeds))
            wanted = [tuple(c for i, c in chosen if i == image) for image in range(len(wanted))]
        if not needs_gradient:
            results = self._run(self._plain, self._forward_names, feeds)
            return results, self._rows(wanted, results), None
        passes = self.passes()
        names = passes.whole.names
        if isinstance(wanted, list) and all(len(w) == 1 for w in wanted):
            index = np.array([w[0] for w in wanted], np.int64)
            run = functools.partial(self._run, passes.whole_session, [*self._forward_names, *names.outputs])
            results = self._scaled(passes, run, {**feeds, names.inputs[TARGET_INDEX]: index})
            rows = [(i, int(c)) for i, c in enumerate(results[names.class_index])]
            return results, rows, gradients_in(results, names)
        results, passed = self._forward(passes, feeds)
        rows = self._rows(wanted, results)
        given = {names.inputs[TARGET_INDEX]: np.array([c for _, c in rows], np.int64)}
        found = self._backward(passes, passes.whole.gradients, self._again(passed, rows, feeds), given)
        return results, rows, gradients_in(found, names)

    def _evaluate_goals(
        self, feeds: Arrays, goals: list[tuple[BoundTarget, ...]], needs_gradient: bool
    ) -> tuple[dict[str, Any], Rows, Gradients | None]:
        """The forward pass, once for each kind; what the goals come to; the score and its gradient for all rows of a
        kind together."""
        results: dict[str, Any] = {}
        passed: dict[Kind, Arrays] = {}
        for kind in dict.fromkeys(goal.kind for several in goals for goal in several):
            found, passed[kind] = self._forward(self.passes(kind), feeds) if needs_gradient else self._seen(kind, feeds)
            results.update(found)
        rows: list[tuple[int, RowTarget]] = [
            (image, goal.row(self._view(results, goal.kind), image))
            for image, several in enumerate(goals)
            for goal in several
        ]
        scores = np.zeros(len(rows), np.float32)
        parts: list[tuple[list[int], Gradients]] = []
        for kind in dict.fromkeys(aim.kind for _, aim in rows):
            if kind not in passed:
                _, passed[kind] = self._forward(self.passes(kind), feeds) if needs_gradient else self._seen(kind, feeds)
            at = [k for k, (_, aim) in enumerate(rows) if aim.kind == kind]
            again = self._again(passed[kind], [rows[k] for k in at], feeds)
            passes, aims = self.passes(kind), [rows[k][1] for k in at]
            if needs_gradient:
                names = passes.whole.names
                found = self._backward(
                    passes, [names.score, *passes.whole.gradients], again, _parameters(aims, names.inputs)
                )
                scores[at] = found[names.score]
                parts.append((at, gradients_in(found, names)))
            else:
                output, inputs = passes.scored.output, passes.scored.inputs
                given = {**again, **_parameters(aims, inputs)}
                scores[at] = run_in_pieces(passes.scoring.run, [output], given, self._batch)[output]
        scored = [(image, replace(aim, score=float(s))) for (image, aim), s in zip(rows, scores, strict=True)]
        return results, scored, joined(parts, len(rows)) if needs_gradient else None

    # --- steps ----------------------------------------------------------------------------------------------

    def _seen(self, kind: Kind, feeds: Arrays) -> tuple[dict[str, Any], Arrays]:
        """The forward pass alone, with what a kind has to see; what a run of its score takes."""
        names = list(dict.fromkeys([*self._forward_names, *read(self._score, kind).values()]))
        return self._run(self.passes(kind).seeing(names), names, feeds), feeds

    def _forward(self, passes: Passes, feeds: Arrays) -> tuple[dict[str, Any], Arrays]:
        """The results of the forward pass, and what of them goes into the backward pass."""
        names = list(dict.fromkeys([*self._forward_names, *passes.whole.scores]))
        if passes.cut is None:
            return self._run(passes.seeing(names), names, feeds), feeds
        first, _, boundary = passes.halves
        results = self._run(first, list(dict.fromkeys([*names, *boundary])), feeds)
        return results, {name: results[name] for name in boundary}

    def _backward(self, passes: Passes, names: Sequence[str], passed: Arrays, given: Arrays) -> Arrays:
        """The outputs ``names`` of rows: each with what its image ``passed`` on and the parameters ``given``."""
        session = passes.whole_session if passes.cut is None else passes.halves[1]
        return self._scaled(
            passes, lambda fed: run_in_pieces(session.run, names, fed, self._batch), {**passed, **given}
        )

    def _again(self, passed: Arrays, rows: Sequence[tuple[int, Any]], feeds: Arrays) -> Arrays:
        """What each row's image passed on."""
        count, images = len(feeds[self._image_input]), np.array([image for image, _ in rows])
        return {name: _take(array, images, count) for name, array in passed.items()}

    def _view(self, results: dict[str, Any], kind: Kind) -> ForwardPass:
        dense = {name: np.asarray(results[value]) for name, value in read(self._score, kind).items()}
        return ForwardPass(results, dense, self._ranking(results))

    def _scaled(self, passes: Passes, run: Callable[[Arrays], dict[str, Any]], feeds: Arrays) -> dict[str, Any]:
        """``run(feeds)``, with the gradients of a 16-bit model scaled on their way."""
        if not passes.whole.is_scaled:
            return run(feeds)
        scale_input = passes.whole.names.inputs[SCALE_INPUT]
        results, self.gradient_scale = run_scaled(run, scale_input, passes.whole.gradients, feeds)
        return results

    def _run(self, session: Session, names: Sequence[str], feeds: dict[str, np.ndarray]) -> dict[str, Any]:
        results = run_in_pieces(session.run, names, feeds, self._batch)
        given = {k: v for k, v in feeds.items() if k in self._inputs}
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


def _goal(wanted: int | BoundTarget | RowTarget) -> BoundTarget:
    return (
        wanted
        if isinstance(wanted, BoundTarget)
        else class_target(wanted)
        if isinstance(wanted, int)
        else fixed_target(wanted)
    )


def _parameters(aims: Sequence[RowTarget], inputs: Mapping[str, str]) -> Arrays:
    """Return the parameters of rows of one kind, stacked, by the names of the graph's ``inputs`` for them."""
    stacked = {inputs[name]: np.stack([aim.parameters[name] for aim in aims]) for name in aims[0].parameters}
    return {inputs[TARGET_INDEX]: np.array([aim.class_index for aim in aims], np.int64), **stacked}
