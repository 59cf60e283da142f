"""The gradient graphs of one kind of target, and their sessions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import onnx_ir as ir

from onnx_gradcam.autodiff.registry import RULES
from onnx_gradcam.engine.program import (
    Cut,
    Finish,
    GradientGraph,
    Scored,
    Table,
    differentiate,
    forward_only,
    has_rows,
    scored,
    split,
    to_run,
)
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.engine.tail import Tail
from onnx_gradcam.targets import Kind
from onnx_gradcam.targets.written import WrittenScore


class Backward(NamedTuple):
    """How a backward pass is written; ``differentiate`` says what each of these means."""

    table: Table = RULES
    sign: int = 1
    second_order: bool = False
    through: tuple[str, ...] = ()
    finish: Finish | None = None


class Passes:
    """Forward and backward pass for the targets of a ``kind``: graphs are written, and sessions opened, when needed."""

    def __init__(
        self,
        prepared: ir.Model,
        score: WrittenScore,
        layers: Sequence[str],
        image_input: str,
        options: Options,
        backward: Backward,
        kind: Kind,
    ) -> None:
        self._prepared, self._score, self._layers = prepared, score, layers
        self._image_input, self._options, self._backward, self.kind = image_input, options, backward, kind
        self._forward_session: Session | None = None
        self._tails: dict[str, Tail] = {}

    @cached_property
    def whole(self) -> GradientGraph:
        """Return the gradient graph: forward and backward pass in one."""
        names = list(dict.fromkeys(self._layers))
        table, sign, second_order, through, finish = self._backward
        return differentiate(self._prepared, self._score, names, table, self.kind, second_order, sign, through, finish)

    @cached_property
    def whole_session(self) -> Session:
        """Return the session of the whole graph."""
        return Session(to_run(self.whole), self._options)

    @cached_property
    def cut(self) -> Cut | None:
        """Return the forward and the backward half, or None where what passes between them is not cut image
        by image."""
        found = split(self.whole)
        return found if has_rows(found, self._image_input) else None

    @cached_property
    def halves(self) -> tuple[Session, Session, tuple[str, ...]]:
        """Return the sessions of the two halves, and the names of the values that pass between them."""
        assert self.cut is not None
        return Session(self.cut.forward, self._options), Session(self.cut.backward, self._options), self.cut.boundary

    @cached_property
    def scored(self) -> Scored:
        """Return the graph of the score alone."""
        return scored(self._prepared, self._score, self.kind)

    @cached_property
    def scoring(self) -> Session:
        """Return the session of the score alone."""
        return Session(self.scored.model, self._options)

    def forward_session(self, names: Sequence[str]) -> Session:
        """Return a session of the forward pass that returns these values."""
        if self._forward_session is None or not set(names) <= set(self._forward_session.outputs):
            self._forward_session = Session(forward_only(self._prepared, names), self._options)
        return self._forward_session

    def tail(self, name: str, axis: int, batch: int | None) -> Tail:
        """Return the graph behind a value; ``axis`` is its batch axis, ``batch`` as ``batch_size`` returns it."""
        if name not in self._tails:
            common = self._prepared, self._score, self.kind, name, axis, self._image_input, batch, self._options
            self._tails[name] = Tail(*common)
        return self._tails[name]

    @property
    def open_sessions(self) -> list[Session]:
        """Return the sessions that were needed so far."""
        held = [self.__dict__[name] for name in ("whole_session", "scoring") if name in self.__dict__]
        forward = [self._forward_session] if self._forward_session else []
        tails = [session for tail in self._tails.values() for session in tail.open_sessions]
        return [*held, *self.__dict__.get("halves", ())[:2], *forward, *tails]

    def close(self) -> None:
        """Free the sessions; they are opened again when needed."""
        for name in ("whole_session", "halves", "scoring"):
            self.__dict__.pop(name, None)
        for tail in self._tails.values():
            tail.close()
        self._forward_session = None
