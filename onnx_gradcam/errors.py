"""The errors that this package raises, as one tree.

    OnnxGradcamError
    ├── ModelError                 the file or the graph cannot be used
    │   ├── UnsupportedGradient    a node on the path has no rule, or a form of it that the rule was not written for
    │   ├── NoGradientPath         the score does not depend on the target layer
    │   ├── ForwardMismatch        the rewritten graph does not compute what the deployed model computes
    │   ├── UnknownOperator        neither ONNX nor onnxruntime defines an operator before the score
    │   └── NotFinite              scores, activation, gradient or map of an image hold NaN or infinity
    ├── LayerError                 no such target layer, or one that cannot be explained
    ├── ScoreError                 no score tensor was found, or the named one does not fit
    ├── TargetError                class, label or number of targets does not fit the model
    ├── InputError                 an array or image cannot be fed to the model
    ├── PreprocessError            a preset or preprocessing file is unknown or incomplete
    ├── MethodError                the method is unknown, or does not apply to this model and layer
    ├── MetricError                the metric is unknown, or something that it needs is missing
    ├── ProviderError              the runtime or the execution provider is not available
    ├── RequirementError           a condition for a comparison cannot be read
    └── OutputError                a result cannot be written, or exists already

Each error says what happened, where, and what to try next, and carries its data as attributes.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.metadata
from collections.abc import Iterable, Mapping
from typing import Any

BRIEF = 100  # characters of a value in a line


class OnnxGradcamError(Exception):
    """Base of all errors that this package raises.

    >>> error = OnnxGradcamError("no such layer: 'relu9'", hint="'relu4'", name="relu9")
    >>> error.name
    'relu9'
    >>> print(error)
    no such layer: 'relu9'
      try    'relu4'

    Attributes:
        what: what happened, one sentence.
        where: the place in the model or in the file, one line; "" where there is none.
        hint: what to try next, one line; "" where there is no advice.
        data: the values that the error is about, by name; each is an attribute of the error, too.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "", **data: object) -> None:
        self.what, self.where, self.hint, self.data = what, where, hint, data
        super().__init__(what)

    def __getattr__(self, name: str) -> object:
        data = self.__dict__.get("data", {})
        if name not in data:
            raise AttributeError(name)
        return data[name]

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where  {self.where}")
        if self.hint:
            lines.append(f"  try    {self.hint}")
        return "\n".join(lines)


class ModelError(OnnxGradcamError):
    """The model file or its graph cannot be used."""


class UnsupportedGradient(ModelError):
    """The graph cannot be differentiated through one of its nodes."""


class NoGradientPath(ModelError):
    """The score does not depend on the target layer through differentiable operators."""


class ForwardMismatch(ModelError):
    """The rewritten graph does not compute what the deployed model computes."""


class UnknownOperator(ModelError):
    """An operator before the score is one that neither ONNX nor onnxruntime defines.

    Attributes:
        op_type: the operator.
        domain: its domain; "" for ONNX's own.
        node: the name of the node.
    """

    op_type: str
    domain: str
    node: str


class NotFinite(ModelError):
    """Scores, activation, gradient or map of an image hold NaN or infinity.

    Attributes:
        images: the numbers of the images in their batch; the others can be explained without them.
        problem: what holds NaN or infinity, in words.
        value: the name of the ONNX value.
    """

    images: tuple[int, ...]
    problem: str
    value: str


class LayerError(OnnxGradcamError):
    """The target layer does not exist or cannot be explained."""


class ScoreError(OnnxGradcamError):
    """No score tensor was found, or the named one does not fit."""


class TargetError(OnnxGradcamError):
    """A class, label or number of targets does not fit the model."""


class InputError(OnnxGradcamError):
    """An array or image cannot be fed to the model."""


class PreprocessError(OnnxGradcamError):
    """A preprocessing preset or file is unknown or incomplete."""


class MethodError(OnnxGradcamError):
    """The method is unknown, or does not apply to this model and layer."""


class MetricError(OnnxGradcamError):
    """The metric is unknown, or something that it needs is missing."""


class ProviderError(OnnxGradcamError):
    """The runtime or the execution provider is not available."""


class RequirementError(OnnxGradcamError):
    """A condition for a comparison cannot be read."""


class OutputError(OnnxGradcamError):
    """A result cannot be written, or exists already."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return the names in ``known`` that are closest to ``name``, quoted; of a short list all, if none is close.

    >>> nearest("gradcm", ["gradcam", "eigencam", "saliency"])
    "'gradcam'"
    """
    known = list(dict.fromkeys(known))
    folded = {k.casefold(): k for k in known}
    close = [folded[k] for k in difflib.get_close_matches(name.casefold(), folded, n=count, cutoff=0.5)]
    return ", ".join(repr(k) for k in (close or known[: 2 * count]))


def one_line(record: Any) -> str:
    """Return the ``repr`` of a dataclass in one line, in which an array is its dtype and its shape.

    Long values are cut. A message, a log and a notebook can hold the line.
    """
    shown = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.repr}
    return f"{type(record).__name__}({', '.join(f'{name}={_brief(value)}' for name, value in shown.items())})"


def _brief(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"<{value.dtype} {tuple(value.shape)}>"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_brief(each)}" for key, each in value.items()) + "}"
    text = " ".join(repr(value).split())
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}…"


def reinstall(module: str) -> str:
    """Return the pip command that repairs an installation of ``module``, whatever distributions it came from."""
    owners = sorted(set(importlib.metadata.packages_distributions().get(module, [])))
    if len(owners) < 2:
        return f"pip install --force-reinstall {owners[0] if owners else module}"
    keep = next((o for o in owners if "gpu" in o or "headless" in o), owners[0])
    return (
        f"pip uninstall -y {' '.join(owners)} && pip install {keep}   (several packages contain the module {module!r})"
    )
