"""Targets made of the scores of classes: probabilities, and one class against others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.anatomy.classifier import head_rows
from onnx_gradcam.anatomy.score import NO_CLASSES
from onnx_gradcam.errors import TargetError, nearest
from onnx_gradcam.targets.base import TargetObject
from onnx_gradcam.targets.bound import (
    Array,
    BoundTarget,
    Context,
    ForwardPass,
    RowTarget,
    fixed_target,
    one_hot,
    one_row,
)
from onnx_gradcam.targets.kinds import LINEAR, LOG_PROBABILITY, PROBABILITY, WEIGHTED, Kind

LIKENESSES = ("auto", "head", "scores")
WEIGHTINGS: Mapping[str, Kind] = {"mean": LINEAR, "softmax": WEIGHTED}
SIMILAR = 3  # classes that Finer-CAM compares with
GAMMA = 0.6
Class = int | str | None


@dataclass(frozen=True)
class Probability(TargetObject):
    """The probability of a class instead of its logit.

    Attributes:
        label: the class, by index or label; None: the top-1.
    """

    label: Class = None

    def bind(self, context: Context) -> BoundTarget:
        """Return the target that explains p_c, by a Softmax or Sigmoid over the scores."""
        return _probability(self, context, self.label, PROBABILITY, "prob", "P")


@dataclass(frozen=True)
class LogProbability(TargetObject):
    """The log-probability of a class.

    Attributes:
        label: the class, by index or label; None: the top-1.
    """

    label: Class = None

    def bind(self, context: Context) -> BoundTarget:
        """Return the target that explains log p_c, by a Softmax or Sigmoid over the scores."""
        return _probability(self, context, self.label, LOG_PROBABILITY, "logprob", "log P")


def _probability(target: object, context: Context, name: Class, kind: Kind, form: str, symbol: str) -> BoundTarget:
    context.require(target, "classes", "binary", "map", "detector", "sequence")
    index = context.class_index(name)

    def row(forward: ForwardPass, image: int) -> RowTarget:
        c = forward.best(image, index)
        return RowTarget(kind, c, text=f"{form}:{c}", title=f"{symbol}({context.label(c)})")

    return one_row(kind, row)


@dataclass(frozen=True)
class Difference(TargetObject):
    """Why this class and not that one: y_a − y_b.

    Of a model with many scores per image both scores are those of the cell where ``label`` is most probable.

    Attributes:
        label: the class a, by index or label; None: the top-1.
        other: the class b.
    """

    label: Class
    other: int | str

    def bind(self, context: Context) -> BoundTarget:
        """Return the target that explains y_a − y_b."""
        context.require(self, "classes", "binary", "map", "detector", "sequence")
        a, b = context.class_index(self.label), context.class_index(self.other)

        def row(forward: ForwardPass, image: int) -> RowTarget:
            c = forward.best(image, a)
            weights = one_hot(context.score.count, c) - one_hot(context.score.count, b)
            title = f"{context.label(c)} − {context.label(b)}"
            return RowTarget(LINEAR, c, {"weights": weights}, f"diff:{c},{b}", title)

        return one_row(LINEAR, row)


@dataclass(frozen=True)
class Finer(TargetObject):
    """What tells a class from similar classes: y_c − γ · mean of the similar classes.   Zhang et al. 2025, Finer-CAM.

    Any method can explain it. torch-cam's FinerCAM is this with ``by="scores"``, and pytorch-grad-cam's, its
    FinerWeightedTarget, with ``by="scores", weighting="softmax", gamma=1``. The default takes similar classes by the
    weights of the last layer, as the paper does: they are the same for every image of a class.

    Attributes:
        label: the class c, by index or label; None: the top-1.
        similar: how many classes to compare with, where ``against`` names none.
        gamma: γ.
        against: the classes to compare with, by index or label; the class itself is left out.
        by: which classes are similar: those whose rows in the last linear layer have the largest cosine with the row
            of the class ("head"), those whose scores are closest to its score ("scores"), or "auto": the first, and
            where no linear layer makes the scores, those with the highest scores.
        weighting: what stands for the similar classes: their "mean", or the mean weighted with the "softmax" of their
            scores, through which the gradient passes as well.
    """

    label: Class = None
    similar: int = SIMILAR
    gamma: float = GAMMA
    against: Sequence[int | str] = ()
    by: str = "auto"
    weighting: str = "mean"

    def bind(self, context: Context) -> BoundTarget:
        """Return the target that explains y_c − γ · mean of the similar classes."""
        context.require(self, "classes", "map", "detector", "sequence")
        count = context.score.count
        if count < 2:
            raise context.refusal(self, "needs classes to compare with, and here is one")
        if not isinstance(self.similar, int | np.integer) or not 1 <= self.similar < count:
            hint = f"from 1 to {count - 1} similar classes"
            raise TargetError(f"{self.similar} similar classes of {count}", hint=hint, target=self)
        for name, word, words in (("by", self.by, LIKENESSES), ("weighting", self.weighting, WEIGHTINGS)):
            if word not in words:
                raise TargetError(f"{name} {word!r}", hint=nearest(str(word), words), target=self)
        index = context.class_index(self.label)
        named = [c for c in map(context.class_index, self.against) if c is not None]
        rows = head_rows(context.score) if self.by != "scores" else None
        if self.by == "head" and rows is None:
            raise context.refusal(self, "compares rows of the last linear layer, and no such layer makes the scores")
        kind = WEIGHTINGS[self.weighting]

        def row(forward: ForwardPass, image: int) -> RowTarget:
            c = forward.best(image, index)
            alike = self._alike(named, rows, forward.ranking[image], c)
            weights = one_hot(count, c)
            weights[alike] = -self.gamma / (len(alike) if kind is LINEAR else 1)
            others = ", ".join(context.label(int(k)) for k in alike)
            title = f"{context.label(c)} − {self.gamma:g} · {self.weighting}({others})"
            return RowTarget(kind, c, {"weights": weights}, f"finer:{c}", title)

        return one_row(kind, row)

    def _alike(self, named: Sequence[int], rows: Array | None, scores: Array, c: int) -> Array:
        """Return the classes to compare class c with."""
        if named:
            others = np.array([k for k in dict.fromkeys(named) if k != c])
            if not len(others):
                raise TargetError("a class against itself alone", hint="other classes to compare with", target=self)
            return others
        if rows is not None:
            return most_similar(cosines(rows, c), c, self.similar)
        return most_similar(-np.abs(scores - scores[c]) if self.by == "scores" else scores, c, self.similar)


def cosines(rows: Array, index: int) -> Array:
    """Return the cosine (K,) of each row of (K, D) with the row ``index``."""
    norms = np.linalg.norm(rows, axis=1)
    cosine: Array = rows @ rows[index] / np.maximum(norms * norms[index], 1e-30)
    return cosine


def most_similar(likeness: Array, index: int, count: int) -> Array:
    """Return the ``count`` classes with the largest ``likeness`` (K,), ``index`` itself left out."""
    order = np.argsort(-likeness, kind="stable")
    classes: Array = order[order != index][:count]
    return classes


@dataclass(frozen=True)
class Output(TargetObject):
    """One number of the score tensor as it is: that of a regression, or one of several.

    Attributes:
        column: which number, from 0.
        sign: 1, or −1 for what makes the number small.
    """

    column: int = 0
    sign: int = 1

    def bind(self, context: Context) -> BoundTarget:
        """Return the target that explains the number, or its negative."""
        context.require(self, "classes", "binary", "regression", *NO_CLASSES)
        count = context.score.count if context.kind in ("classes", *NO_CLASSES) else 1
        if not 0 <= self.column < count or self.sign not in (1, -1):
            hint = f"a column from 0 to {count - 1}, the sign 1 or −1"
            raise TargetError(f"no output {self.column} with sign {self.sign}", hint=hint, target=self)
        minus = "-" if self.sign < 0 else ""
        name = f"{context.score.name}[{self.column}]"
        if context.kind == "binary":
            weights = np.array([0, self.sign], np.float32)  # of −z and z
        else:
            weights = one_hot(context.score.count, self.column, self.sign)
        row = RowTarget(LINEAR, -1, {"weights": weights}, f"{minus}output:{self.column}", f"{minus}{name}")
        return fixed_target(row)
