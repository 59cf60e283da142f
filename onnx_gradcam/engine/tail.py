"""The session of the graph behind a value: from changed copies of the value to the scores of targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_gradcam.engine.behind import Behind, behind
from onnx_gradcam.engine.rows import parameters_of
from onnx_gradcam.engine.scores import by_class
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.errors import InputError, ModelError
from onnx_gradcam.targets import Kind, RowTarget
from onnx_gradcam.targets.written import WrittenScore

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

MAX_VALUES = 2**22
"""A part of a network runs so many copies at once that its largest value has no more numbers: beyond the caches, more
copies are slower."""
MAX_VALUES_OF_INPUT = 2**24
"""The whole network has a higher limit: it reads many more weights in each run, and fewer copies would be slower."""
TOLERANCE = 1e-3
"""Copies that are run together may differ from copies that are run alone by this share of the largest score."""


class Tail:
    """The graph behind a value, for targets of one kind; its session is opened when needed.

    Args:
        prepared: the model, as ``write_score`` returns it.
        score: its score.
        kind: the kind of the targets.
        name: the name of the value.
        axis: the batch axis of the value.
        image_input: the name of the input that holds the images.
        batch: how many images the model takes at once, as ``batch_size`` returns it.
        options: how sessions are opened.
    """

    def __init__(
        self,
        prepared: ir.Model,
        score: WrittenScore,
        kind: Kind,
        name: str,
        axis: int,
        image_input: str,
        batch: int | None,
        options: Options,
    ) -> None:
        self._score, self._kind, self._axis, self._options = score, kind, axis, options
        self._graph: Behind = behind(prepared, score, kind, name, image_input)
        self._size = batch or 1
        self._most = MAX_VALUES_OF_INPUT if name == image_input else MAX_VALUES
        self._is_free = True if batch is None and not self.beside else None

    @property
    def beside(self) -> tuple[str, ...]:
        """Return the names of the other values of the forward pass that it reads."""
        return self._graph.beside

    @cached_property
    def _sessions(self) -> tuple[Session | None, Session | None]:
        """Return the sessions of the trunk and of the score of a target."""
        trunk, scoring = (
            None if part is None else Session(part, self._options) for part in (self._graph.trunk, self._graph.scoring)
        )
        return trunk, scoring

    @property
    def open_sessions(self) -> list[Session]:
        """Return the sessions, if they were needed so far."""
        return [session for session in self.__dict__.get("_sessions", ()) if session is not None]

    def close(self) -> None:
        """Free the sessions; they are opened again when needed."""
        self.__dict__.pop("_sessions", None)

    def scores(self, copies: Array, beside: Arrays, targets: Sequence[RowTarget]) -> Array:
        """Return the scores of targets for copies of the value, (B, K) float64.

        What does not depend on the target is run once for all of them.

        Args:
            copies: B copies of the value of one image, behind one another along the batch axis.
            beside: the other values of that image, by name.
            targets: K targets of the kind.

        Raises:
            ModelError: a node fails.
        """
        if self._kind.is_score_entry:
            columns = by_class(self._score, self._run(copies, beside, ()))
            return columns[:, [target.class_index for target in targets]].astype(np.float64)
        each = [parameters_of([target], self._graph.inputs) for target in targets]
        return self._run(copies, beside, each).astype(np.float64)

    def _run(self, copies: Array, beside: Arrays, each: Sequence[Arrays]) -> Array:
        """Return the score tensor for classes, else (B, K); ``each`` has the parameters of each target."""
        count = copies.shape[self._axis]
        if self._is_free is None and count > 1:
            self._is_free = self._are_run_alike(copies.take([0, count - 1], axis=self._axis), beside, each)
        if not self._is_free:
            return self._run_alone(copies, beside, each)
        at_once = max(1, self._most // max(self._graph.widest, copies.size // count))
        pieces = np.split(copies, range(at_once, count, at_once), axis=self._axis)
        return np.concatenate([self._run_together(piece, beside, each) for piece in pieces])

    def _are_run_alike(self, copies: Array, beside: Arrays, each: Sequence[Arrays]) -> bool:
        """Tell whether copies that are run together get the scores that each gets alone."""
        alone = self._run_alone(copies, beside, each)
        try:
            together = self._run_together(copies, beside, each)
        except (InputError, ModelError):  # shapes that hold for one image alone
            return False
        largest = np.abs(alone).max(initial=0)
        return together.shape == alone.shape and bool(np.all(np.abs(together - alone) <= TOLERANCE * largest))

    def _run_together(self, copies: Array, beside: Arrays, each: Sequence[Arrays]) -> Array:
        """Run copies at once; what goes with each is repeated for it."""
        count = copies.shape[self._axis]
        rows = {
            name: beside[name].repeat(count, axis=0) if self._is_row(beside[name], name) else beside[name]
            for name in self.beside
        }
        given = [{name: array.repeat(count, axis=0) for name, array in parameters.items()} for parameters in each]
        return self._scored({self._graph.changed: np.ascontiguousarray(copies), **rows}, given)

    def _run_alone(self, copies: Array, beside: Arrays, each: Sequence[Arrays]) -> Array:
        """Run copies one by one, each as often as the model takes images at once."""
        pieces = []
        for number in range(copies.shape[self._axis]):
            same = copies.take([number] * self._size, axis=self._axis)
            pieces.append(self._run_together(same, beside, each)[:1])
        return np.concatenate(pieces)

    def _is_row(self, array: Array, name: str) -> bool:
        return name in self._graph.by_image and len(array) == 1

    def _scored(self, feeds: Arrays, each: Sequence[Arrays]) -> Array:
        trunk, scoring = self._sessions
        output = self._graph.output
        if trunk is not None:
            feeds = {**feeds, **_run_session(trunk, trunk.outputs, feeds)}
        if scoring is None:
            return np.asarray(feeds[output])
        scores = [_run_session(scoring, [output], {**feeds, **parameters})[output] for parameters in each]
        return np.stack(scores, axis=1)


def _run_session(session: Session, names: Sequence[str], values: Arrays) -> Arrays:
    """Return outputs of a session, which reads some of the values."""
    return session.run(names, {name: values[name] for name in session.inputs})
