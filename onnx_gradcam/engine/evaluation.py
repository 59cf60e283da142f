"""The sessions of one explained model, and what they give for images and classes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_gradcam.autodiff.rectifiers.gating import Gating
from onnx_gradcam.engine.batches import NOTHING, batch_size, run_in_pieces
from onnx_gradcam.engine.checks import CheckedModel, check_forward, check_rows
from onnx_gradcam.engine.fidelity import differences, own_difference, rounding_decides
from onnx_gradcam.engine.gradients import Gradients, gradients_in, joined
from onnx_gradcam.engine.passes import Backward, Passes
from onnx_gradcam.engine.program import Cut, GradientGraph, forward_only, read
from onnx_gradcam.engine.rows import Row, Rows, known_ahead, parameters_of, rows_of, settled
from onnx_gradcam.engine.scaling import run_scaled
from onnx_gradcam.engine.scores import by_class
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.engine.tail import Tail
from onnx_gradcam.errors import ForwardMismatch, LayerError
from onnx_gradcam.graph.load import Source
from onnx_gradcam.graph.names import SCALE_INPUT, GradientNames
from onnx_gradcam.targets import CLASS, BoundTarget, ForwardPass, Kind, RowTarget, fixed_target
from onnx_gradcam.targets.written import WrittenScore

Arrays = dict[str, np.ndarray]
Array = npt.NDArray[Any]
Targets = Sequence[tuple[BoundTarget, ...]]
"""For each image what is explained of it."""


@dataclass(frozen=True, eq=False)
class RunResult:
    """What an evaluation gave.

    Attributes:
        results: the results of the forward pass by name, one entry per image.
        rows: what is explained, image by image; the targets hold the score that was computed for them.
        gradients: one entry per row; None where none were needed.
    """

    results: Mapping[str, Any]
    rows: tuple[Row, ...]
    gradients: Gradients | None


class Evaluation:
    """Opens sessions when they are first needed and keeps them warm.

    ``apart``: how far the gradient graph's outputs are from the deployed model's, where they are accepted although they
    differ. ``gradient_scale``: of the last gradients of a 16-bit model. ``batch_axes``: those of the target layers.
    """

    def __init__(
        self,
        source: Source,
        prepared: ir.Model,
        score: WrittenScore,
        layers: Sequence[str],
        image_input: str,
        options: Options,
        backward: Backward,
        batch_axes: Mapping[str, int] = NOTHING,
    ) -> None:
        self._source, self._prepared, self._score, self._layers = source, prepared, score, layers
        self.score = score
        self._image_input, self._options, self._rules_back = image_input, options, backward
        self._batch = batch_size(prepared.graph, image_input)
        self._axes = {name: batch_axes.get(name, 0) for name in layers}
        self._explained = self._axes.keys() & batch_axes.keys()
        self._inputs = frozenset(v.name for v in prepared.graph.inputs)
        self._unchecked = options.check_forward
        self._by_kind: dict[Kind, Passes] = {}
        self._beside: dict[str, None] = {}
        self.gradient_scale: float | None = None
        self.apart: float | None = None

    def passes(self, kind: Kind = CLASS) -> Passes:
        """Return the graphs and sessions for targets of a kind."""
        if kind not in self._by_kind:
            common = self._prepared, self._score, self._layers, self._image_input, self._options
            self._by_kind[kind] = Passes(*common, self._rules_back, kind)
        return self._by_kind[kind]

    def tail(self, kind: Kind, name: str) -> Tail:
        """Return the graph behind a value; forward passes without gradients return what it reads, from now on."""
        tail = self.passes(kind).tail(name, self._axes[name], self._batch)
        self._beside.update(dict.fromkeys(tail.beside))
        return tail

    def values(self, feeds: Arrays, names: Sequence[str]) -> dict[str, Any]:
        """Return values of the forward pass by name."""
        return self._run(self.passes().forward_session(names), names, feeds)

    def close(self) -> None:
        """Free the sessions; the next call opens them again."""
        for each in self._by_kind.values():
            each.close()
        self.__dict__.pop("_deployed", None)

    @property
    def whole(self) -> GradientGraph:
        """Return the gradient graph for classes: forward and backward pass in one."""
        return self.passes().whole

    @property
    def gating(self) -> Gating:
        """Return the activations on the way back; they are the same for all kinds of targets."""
        held = next(iter(self._by_kind.values()), None) or self.passes()
        return held.whole.gating

    @property
    def cut(self) -> Cut | None:
        """Return the gradient graph for classes in halves, or None where what passes between them is not cut image by
        image."""
        return self.passes().cut

    @property
    def whole_session(self) -> Session:
        """Return the session of the gradient graph for classes."""
        return self.passes().whole_session

    @property
    def providers(self) -> list[str]:
        """Return the execution providers in use, by full name."""
        held = self._open_sessions
        return list((held[0] if held else self._deployed).providers)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what the user should know of the runs so far, each once."""
        held = [*self._open_sessions, *([self._deployed] if "_deployed" in self.__dict__ else [])]
        return tuple(dict.fromkeys(warning for session in held for warning in session.warnings))

    @property
    def _open_sessions(self) -> list[Session]:
        return [session for each in self._by_kind.values() for session in each.open_sessions]

    @cached_property
    def _deployed(self) -> Session:
        names = [*self.output_names, *self._score.results]
        return Session(forward_only(self._prepared, names), self._options)

    @property
    def output_names(self) -> list[str]:
        """Return the deployed model's outputs."""
        return [v.name or "" for v in self._prepared.graph.outputs]

    @property
    def _forward_names(self) -> list[str]:
        given = {v.name for v in self._prepared.graph.inputs}
        explained = [name for name in self._layers if name not in given]
        return list(dict.fromkeys([*self.output_names, *self._score.results, *explained]))

    def evaluate(self, feeds: Arrays, targets: Targets, needs_gradient: bool) -> RunResult:
        """Evaluate the model for the targets, and the gradients at the layers where they are needed.

        One target for each image, of one kind, that needs to see nothing: forward and backward pass are one run.
        Otherwise the forward pass runs once for each kind, and the backward pass for all rows of a kind together.

        Args:
            feeds: arrays by the names of the model's inputs.
            targets: for each image what is explained of it.
            needs_gradient: whether gradients are computed.
        """
        if self.apart is not None:
            targets = self._as_deployed(feeds, targets)
        together = known_ahead(targets) if needs_gradient else None
        if together is None:
            run = self._in_two_runs(feeds, targets, needs_gradient)
        else:
            run = self._in_one_run(feeds, together)
        explained = {name: feeds[name] for name in self._layers if name in self._inputs}
        return replace(run, results={**run.results, **explained})

    def _in_one_run(self, feeds: Arrays, targets: Sequence[RowTarget]) -> RunResult:
        passes = self.passes(targets[0].kind)
        names = passes.whole.names
        outputs = [*self._forward_names, *names.outputs]
        run = functools.partial(self._run, passes.whole_session, outputs, gradients=names)
        results = self._scaled(passes, run, {**feeds, **parameters_of(targets, names.inputs)})
        check_forward(self._subject, results, self._ranking(results), feeds)
        chosen = zip(targets, results[names.class_index], results[names.score], strict=True)
        rows = [
            Row(image, settled(target, int(index), float(score))) for image, (target, index, score) in enumerate(chosen)
        ]
        gradients = gradients_in(results, names)
        check_rows(self._subject, self.passes, rows, gradients, results, feeds)
        return RunResult(results, tuple(rows), gradients)

    def _in_two_runs(self, feeds: Arrays, targets: Targets, needs_gradient: bool) -> RunResult:
        forward = self._forward if needs_gradient else self._seen
        results: dict[str, Any] = {}
        passed: dict[Kind, Arrays] = {}
        for kind in dict.fromkeys(target.kind for several in targets for target in several):
            seen, passed[kind] = forward(self.passes(kind), feeds)
            results.update(seen)
        check_forward(self._subject, results, self._ranking(results), feeds)
        views = {kind: self._view(results, kind) for kind in passed}
        rows = [
            Row(image, row, number=number)
            for image, several in enumerate(targets)
            for number, target in enumerate(several)
            for row in target.rows(views[target.kind], image)
        ]
        scores = np.full(len(rows), np.nan, np.float32)
        parts: list[tuple[list[int], Gradients]] = []
        for kind in dict.fromkeys(row.target.kind for row in rows):
            if kind not in passed:
                _, passed[kind] = forward(self.passes(kind), feeds)
            numbers = [number for number, row in enumerate(rows) if row.target.kind == kind]
            of_kind = [rows[number] for number in numbers]
            again = self._again(passed[kind], of_kind, feeds)
            if needs_gradient:
                found, gradients = self._backward(kind, again, of_kind)
                parts.append((numbers, gradients))
                scores[numbers] = found
            elif not kind.is_score_entry:
                scores[numbers] = self._scores(kind, again, of_kind)
        scored = [replace(row, target=replace(row.target, score=float(s))) for row, s in zip(rows, scores, strict=True)]
        gradients_of_rows = joined(parts, len(rows), self._axes) if needs_gradient else None
        check_rows(self._subject, self.passes, scored, gradients_of_rows, results, feeds)
        return RunResult(results, tuple(scored), gradients_of_rows)

    # --- steps ----------------------------------------------------------------------------------------------

    def _as_deployed(self, feeds: Arrays, targets: Targets) -> Targets:
        """Return the targets with the top-1 of the deployed model where the graph would choose its own."""
        deployed = ForwardPass({}, {}, self._ranking(self._deployed_results(feeds)))
        return [
            tuple(
                fixed_target(*target.rows(deployed, image))
                if target.ahead is not None and target.kind.is_score_entry
                else target
                for target in several
            )
            for image, several in enumerate(targets)
        ]

    def _seen(self, passes: Passes, feeds: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Run the forward pass alone, with what a kind has to see; return it, and what a run of its score takes."""
        read_by_kind = read(self._score, passes.kind).values()
        names = list(dict.fromkeys([*self._forward_names, *read_by_kind, *self._beside]))
        return self._run(passes.forward_session(names), names, feeds), feeds

    def _forward(self, passes: Passes, feeds: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Return the results of the forward pass, and what of them goes into the backward pass."""
        names = list(dict.fromkeys([*self._forward_names, *passes.whole.scores]))
        if passes.cut is None:
            return self._run(passes.forward_session(names), names, feeds), feeds
        first, _, boundary = passes.halves
        results = self._run(first, list(dict.fromkeys([*names, *boundary])), feeds)
        return results, {name: results[name] for name in boundary}

    def _backward(self, kind: Kind, passed: Arrays, rows: Rows) -> tuple[Array, Gradients]:
        """Return scores and gradients of rows of a kind: each with what its image ``passed`` on."""
        passes = self.passes(kind)
        names = passes.whole.names
        session = passes.whole_session if passes.cut is None else passes.halves[1]
        outputs = [names.score, *passes.whole.gradients]
        given = {**passed, **parameters_of([row.target for row in rows], names.inputs)}
        results = self._scaled(passes, lambda fed: self._in_pieces(session, outputs, fed, names), given)
        return results[names.score], gradients_in(results, names)

    def _scores(self, kind: Kind, passed: Arrays, rows: Rows) -> Array:
        passes = self.passes(kind)
        output = passes.scored.output
        given = {**passed, **parameters_of([row.target for row in rows], passes.scored.inputs)}
        scores: Array = run_in_pieces(passes.scoring.run, [output], given, self._batch)[output]
        return scores

    def _again(self, passed: Arrays, rows: Rows, feeds: Arrays) -> Arrays:
        """Return for each row what its image passed on."""
        count, images = len(feeds[self._image_input]), np.array([row.image for row in rows])
        return {name: rows_of(array, images, count) for name, array in passed.items()}

    def _view(self, results: dict[str, Any], kind: Kind) -> ForwardPass:
        dense = {name: np.asarray(results[value]) for name, value in read(self._score, kind).items()}
        return ForwardPass(results, dense, self._ranking(results))

    def _scaled(self, passes: Passes, run: Callable[[Arrays], dict[str, Any]], feeds: Arrays) -> dict[str, Any]:
        """Return the results of ``run(feeds)``, with the gradients of a 16-bit model scaled on their way."""
        if not passes.whole.is_scaled:
            return run(feeds)
        scale_input = passes.whole.names.inputs[SCALE_INPUT]
        results, self.gradient_scale = run_scaled(run, scale_input, passes.whole.gradients, feeds)
        return results

    def _in_pieces(
        self, session: Session, names: Sequence[str], feeds: Arrays, gradients: GradientNames | None = None
    ) -> dict[str, Any]:
        """Run a session on all images; layers and their gradients have batch axes of their own."""
        along = dict(self._axes)
        for outputs in () if gradients is None else (gradients.gradients, gradients.curvatures):
            along |= {outputs[name]: axis for name, axis in self._axes.items() if name in outputs}
        return run_in_pieces(session.run, names, feeds, self._batch, along)

    def _check_order(self, session: Session, feeds: Arrays) -> None:
        """Raise ``LayerError`` where the entries of the images of a fixed batch do not lie image by image."""
        size, image = self._batch or 1, self._image_input
        batch = {name: rows_of(x, np.arange(size) % len(feeds[image]), len(feeds[image])) for name, x in feeds.items()}
        other = {**batch, image: np.concatenate([np.zeros_like(batch[image][:1]), batch[image][1:]])}
        layers = {name: axis for name, axis in self._axes.items() if name in self._explained & set(session.outputs)}
        before, after = (session.run(list(layers), fed) for fed in (batch, other))
        for name, axis in layers.items():
            own, changed = before[name].shape[axis] // size, np.moveaxis(before[name] != after[name], axis, 0)
            if changed[own:].any():
                raise LayerError(
                    f"the entries of {name!r} do not lie image by image: which are of which image is not known",
                    where=f"shape {before[name].shape}, for a batch of {size}",
                    hint="the model exported with a batch of 1, or with a dynamic batch",
                    name=name,
                )

    def _has_several_entries(self, results: Mapping[str, Any], count: int) -> bool:
        """Tell whether a layer has more entries than images: which are of which image only a run of one image tells."""
        there = self._explained & results.keys()
        return any(results[name].shape[self._axes[name]] != count for name in there)

    def _run(
        self, session: Session, names: Sequence[str], feeds: Arrays, gradients: GradientNames | None = None
    ) -> dict[str, Any]:
        results = self._in_pieces(session, names, feeds, gradients)
        if self._batch != 1 and self._has_several_entries(results, len(feeds[self._image_input])):
            if self._batch is not None:
                self._check_order(session, feeds)
            else:
                self._batch = 1
                self.__dict__.pop("_subject", None)
                results = self._in_pieces(session, names, feeds, gradients)
        given = {k: v for k, v in feeds.items() if k in self._inputs}
        if self._unchecked:
            self._compare_forward(results, given)
            self._unchecked = False
        return results if self.apart is None else {**results, **self._deployed_results(given)}

    def _deployed_results(self, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return the outputs and the score of the model in which nothing else is exposed."""
        return run_in_pieces(self._deployed.run, self._deployed.outputs, feeds, self._batch)

    def _compare_forward(self, results: dict[str, Any], feeds: dict[str, np.ndarray]) -> None:
        """Compare the outputs with those of the untouched model; this is done once.

        Exposing values can take kernels apart, which round otherwise, as do those of a quantized model. What the
        runtime's own optimisations do to one in which rounding decides is accepted: outputs and prediction are then
        taken from the model as deployed.
        """
        found = {name: results[name] for name in self.output_names}
        apart = [d for d in differences(self._source, self._options, found, feeds, self._batch) if not d.ok]
        if not apart:
            return
        worst = max(apart, key=lambda d: d.error)
        allowed = worst.limit
        if rounding_decides(self._prepared.graph):
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

    @cached_property
    def _subject(self) -> CheckedModel:
        return CheckedModel(
            self._prepared, self._score, self._layers, self._image_input, self._options, self._batch, self._axes
        )

    def _ranking(self, results: Mapping[str, Any]) -> npt.NDArray[Any]:
        """Return the numbers (N, K) by which classes are ranked."""
        dense = self._score.dense
        found: npt.NDArray[Any]
        if dense is None:
            found = by_class(self._score, results[self._score.value.name or ""])
        else:
            found = results[dense.ranking.name or ""]
        return found
