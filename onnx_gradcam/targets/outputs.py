"""Targets on whole outputs: sequences of tokens, embeddings, functions of the user's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import TargetError, one_line
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.photos.decode import load_tensor
from onnx_gradcam.targets.base import TargetObject, reading
from onnx_gradcam.targets.bound import BoundTarget, Context, ForwardPass, RowTarget, fixed_target, one_row
from onnx_gradcam.targets.kinds import SIMILARITY, TOKEN_LOGITS, TOKENS, custom


@dataclass(frozen=True)
class Tokens(TargetObject):
    """The log-probability of some tokens of a sequence of scores, Σ log p, or the sum of their logits, Σ y.

    Attributes:
        tokens: class indices or labels.
        steps: the step in time at which each token is read; None: the i-th token at step i.
        logits: whether the scores before the softmax are summed. The gradient of log p nearly vanishes for a sure
            token, so the map of a sum of log p shows the doubtful ones.
    """

    tokens: tuple[int | str, ...]
    steps: tuple[int, ...] | None = None
    logits: bool = False

    def __init__(self, tokens: Sequence[int | str], steps: Sequence[int] | None = None, logits: bool = False) -> None:
        object.__setattr__(self, "tokens", tuple(tokens))
        object.__setattr__(self, "logits", logits)
        object.__setattr__(self, "steps", None if steps is None else tuple(steps))

    def bind(self, context: Context) -> BoundTarget:
        """Return the target that explains Σ log p, or Σ y."""
        context.require(self, "sequence")
        indices = [context.class_index(t) for t in self.tokens]
        steps = range(len(indices)) if self.steps is None else self.steps
        if not indices or len(steps) != len(indices) or len(set(steps)) < len(steps) or min(steps) < 0:
            raise TargetError(
                f"{len(indices)} tokens at the steps {list(steps)}",
                hint="Tokens([3, 17]) or, at steps of their own, Tokens([3, 17], steps=[5, 9])",
                target=self,
            )
        text = ",".join(f"{k}" if self.steps is None else f"{k}@{t}" for k, t in zip(indices, steps, strict=True))
        words = " ".join(context.label(k) for k in indices)
        kind, form, title = (TOKEN_LOGITS, "logits", words) if self.logits else (TOKENS, "tokens", f"log P({words})")

        def row(forward: ForwardPass, image: int) -> RowTarget:
            shape = forward.dense["logits"].shape[1:]
            if max(steps) >= shape[1]:
                what = f"step {max(steps)} of a sequence of {shape[1]}"
                raise TargetError(what, hint=f"steps from 0 to {shape[1] - 1}", target=self)
            weights = np.zeros(shape, np.float32)
            weights[indices, list(steps)] = 1
            return RowTarget(kind, -1, {"tokens": weights}, f"{form}:{text}", title)

        return one_row(kind, row)


@dataclass(frozen=True, eq=False, repr=False)
class Similar(TargetObject):
    """The cosine of the model's embedding with another one.

    Attributes:
        embedding: an array (D,), or the path of a .npy file.
    """

    embedding: Any

    def __repr__(self) -> str:
        return one_line(self)

    def bind(self, context: Context) -> BoundTarget:
        """Return the target that explains cos(e, q)."""
        context.require(self, "classes", "embedding")
        if context.score.activation:
            raise context.refusal(self, f"compares embeddings, and this score is before a {context.score.activation}")
        is_file = isinstance(self.embedding, str | os.PathLike)
        with reading(self):
            q = np.asarray(load_tensor(self.embedding) if is_file else self.embedding, np.float32).ravel()
        length = float(np.linalg.norm(q))
        if len(q) != context.score.count or not 0 < length < np.inf:
            raise TargetError(
                f"an embedding of {len(q)} numbers and length {length:g}",
                where=f"score {context.score.name!r} has {context.score.count}",
                hint="the model's own output for another image, and not zero",
                target=self,
            )
        name = Path(self.embedding).name if is_file else "the given embedding"
        text = f"similar:{name}" if is_file else "similar"
        row = RowTarget(SIMILARITY, -1, {"embedding": q / np.float32(length)}, text, f"cosine with {name}")
        return fixed_target(row)


@dataclass(frozen=True)
class Custom(TargetObject):
    """A function of your own that writes the score as ONNX nodes.

    Attributes:
        function: ``f(op, outputs) -> Value``. ``outputs`` holds the model's outputs by name. ``op.Mul(a, b)`` writes a
            node, ``op.const(2, like=a)`` a constant with the dtype of a, ``op.ints(1)`` axes. The value that it returns
            has the shape (N,): one score for each image. Reductions must not mix images, which lie along axis 0.
    """

    function: Callable[[Builder, Mapping[str, Value]], Value]

    def bind(self, context: Context) -> BoundTarget:
        """Return the target that explains the score of the function."""
        name = getattr(self.function, "__name__", "function")
        kind = custom(self.function)
        return fixed_target(RowTarget(kind, -1, text=f"custom:{name}", title=name))
