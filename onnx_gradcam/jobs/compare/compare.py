"""Two models, the same images and the same target: do their maps agree?"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import InputError, ScoreError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.graph.load import ModelLike
from onnx_gradcam.jobs.compare.agreement import diagonal, maxima_distance, pearson, top_iou
from onnx_gradcam.jobs.compare.comparison import Comparison, Pair, Side
from onnx_gradcam.jobs.compare.requirements import Requirement
from onnx_gradcam.methods import table as methods
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.photos.decode import list_images, load_tensor
from onnx_gradcam.photos.labels import LabelsLike
from onnx_gradcam.photos.preprocess.choice import Preprocess, PreprocessLike
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.targets import class_index


def compare(
    a: ModelLike,
    b: ModelLike,
    images: str | os.PathLike[str] | Iterable[Any],
    *,
    target: int | str | None = None,
    method: str = "gradcam",
    layer_a: str | Sequence[str] = "auto",
    layer_b: str | Sequence[str] = "auto",
    score_a: str = "auto",
    score_b: str = "auto",
    labels: LabelsLike = None,
    preprocess: PreprocessLike = "auto",
    preprocess_b: PreprocessLike | None = None,
    require: Sequence[str] = (),
    report: Callable[[Pair], None] = lambda _: None,
) -> Comparison:
    """Explain every image with both models and compare predictions and maps.

    Args:
        a, b: path, bytes or ``onnx.ModelProto``; "MODEL@provider" runs it on that execution provider.
        images: files, folders or globs, or what else ``explain_image`` takes; .npy files hold arrays in the models' own
            input form.
        target: a class index or label for both models and all images; None: what ``a`` puts first, image by image.
        method, layer_a, layer_b, score_a, score_b, labels: as for ``Explainer`` and ``explain``.
        preprocess: for both models; "auto": what is found for ``a``. Size, layout and dtype are each model's own.
        preprocess_b: for ``b``, where it differs.
        require: clauses such as "pearson:p05>=0.9", "iou:median>=0.6", "distance:p95<=0.1", "agreement>=0.99".
        report: hears of each pair when it is measured.

    One image: all or nothing. Several: those that cannot be explained are collected in ``errors``.

    Raises:
        RequirementError for a clause that cannot be read, ScoreError where the models have different classes, and what
        ``Explainer``, ``explain`` and ``explain_image`` raise.
    """
    requirements = tuple(Requirement.parse(clause) for clause in require)
    methods.check(Recipe(method))
    subjects = _listed(images)
    found: list[_Both] = []
    errors: list[tuple[str, str]] = []
    with _open(a, layer_a, score_a, labels) as first, _open(b, layer_b, score_b, labels) as second:
        _check_classes(first, second)
        fixed = None if target is None else class_index(target, first.score.count, first.labels)
        bench = _Bench(first, second, method, fixed, preprocess, preprocess_b)
        for k, subject in enumerate(subjects):
            name = str(subject) if isinstance(subject, str | os.PathLike) else str(k)
            try:
                found.append(bench.explain(subject, name))
            except InputError as error:
                if len(subjects) == 1:
                    raise
                errors.append((name, str(error)))
            else:
                for pair in found[-1].pairs:
                    report(pair)
    if not found:
        raise InputError(
            f"none of the {len(subjects)} images could be compared",
            where=errors[0][1].splitlines()[0] if errors else "",
            hint="photos, or .npy arrays in the form that both models take",
        )
    return Comparison(
        a=found[0].a,
        b=found[0].b,
        method=method,
        pairs=tuple(pair for both in found for pair in both.pairs),
        errors=tuple(errors),
        warnings=tuple(dict.fromkeys(warning for both in found for warning in both.warnings)),
        requirements=requirements,
    )


def _listed(images: Any) -> list[Any]:
    """The images one by one: folders and globs as ``list_images`` has them."""
    given = [images] if isinstance(images, str | bytes | os.PathLike) else list(images)
    paths = [i for i in given if isinstance(i, str | os.PathLike)]
    return list_images(paths) if len(paths) == len(given) else given


def _open(model: ModelLike, layer: str | Sequence[str], score: str, labels: LabelsLike) -> Explainer:
    path, provider = _split(model)
    return Explainer(path, layer, score=score, providers=None if provider is None else [provider], labels=labels)


def _split(model: ModelLike) -> tuple[ModelLike, str | None]:
    """``MODEL@provider``, unless a file of that very name exists."""
    if not isinstance(model, str | os.PathLike) or Path(model).exists():
        return model, None
    found = re.fullmatch(r"(.+)@(\w+)", os.fspath(model))
    return (found[1], found[2]) if found else (model, None)


def _check_classes(a: Explainer, b: Explainer) -> None:
    if (a.score.kind, a.score.count) != (b.score.kind, b.score.count):
        counts = f"{a.score.count} ({a.score.kind}) and {b.score.count} ({b.score.kind})"
        raise ScoreError(
            f"the two models have different scores: {counts}",
            where=f"{a.score.value.name!r} of {a.source.name}, {b.score.value.name!r} of {b.source.name}",
            hint="two builds of one model; score_a, score_b (--score-a, --score-b) name other score tensors",
        )


@dataclass(frozen=True)
class _Both:
    """What was found in one image, or in the rows of one .npy file."""

    a: Side
    b: Side
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Bench:
    """Two models side by side, and how both are asked."""

    a: Explainer
    b: Explainer
    method: str
    target: int | None
    preprocess: PreprocessLike
    preprocess_b: PreprocessLike | None

    def explain(self, subject: Any, name: str) -> _Both:
        """Ask both for their own top-1, and those that put another class first than the one wanted again, for that."""
        ask_a, ask_b = self._asked(subject)
        own_a, own_b = ask_a(target=None), ask_b(target=None)
        wanted = [int(c) for c in own_a.class_index] if self.target is None else [self.target] * len(own_a)
        a, b = (
            own if [int(c) for c in own.class_index] == wanted else ask(target=wanted)
            for own, ask in ((own_a, ask_a), (own_b, ask_b))
        )
        pairs = (
            Pair(
                image=name,
                image_index=k,
                class_index=wanted[k],
                label=a.label(k),
                top1_a=int(own_a.class_index[k]),
                top1_b=int(own_b.class_index[k]),
                **measured(*_seen_by_both(a, b, k), _apart(a, b, k)),
            )
            for k in range(len(wanted))
        )
        return _Both(_side(a), _side(b), tuple(pairs), (*a.warnings, *b.warnings))

    def _asked(self, subject: Any) -> tuple[Callable[..., Explanation], Callable[..., Explanation]]:
        if isinstance(subject, str | os.PathLike) and Path(subject).suffix.lower() == ".npy":
            x = load_tensor(subject)
            return (
                partial(self.a.explain, {self.a.image_input.name: x}, method=self.method),
                partial(self.b.explain, {self.b.image_input.name: x}, method=self.method),
            )
        of_b = self.preprocess_b
        if of_b is None:
            of_b = fitted(self.a.preprocessing(self.preprocess).preprocess, self.b)
        return (
            partial(self.a.explain_image, subject, method=self.method, preprocess=self.preprocess),
            partial(self.b.explain_image, subject, method=self.method, preprocess=of_b),
        )


def _side(explanation: Explanation) -> Side:
    provenance = explanation.provenance
    return Side(
        model=provenance.model,
        providers=provenance.providers,
        score=explanation.score_name,
        layers=tuple(layer.name for layer in explanation.layers),
        attributed=explanation.attributed,
    )


def fitted(preprocess: Preprocess, explainer: Explainer) -> Preprocess:
    """The same preprocessing in the size, layout and dtype of another model's input."""
    form = {k: v for k, v in asdict(preprocess).items() if k not in ("size", "layout", "dtype")}
    choice = explainer.preprocessing(form)
    size = choice.preprocess.size
    if size is None or choice.sources["size"].startswith("guessed"):
        return replace(choice.preprocess, size=preprocess.size)
    shorter = preprocess.shorter
    if shorter and preprocess.size and size != preprocess.size:
        shorter = round(shorter * min(size) / min(preprocess.size)) if size[0] == size[1] else None
    return replace(choice.preprocess, size=size, shorter=shorter)


def _seen_by_both(a: Explanation, b: Explanation, row: int) -> tuple[np.ndarray, np.ndarray]:
    """The maps of a row within what both models saw: outside both are 0, which is no agreement."""
    maps = a.heatmap[row], b.heatmap[row]
    if maps[0].ndim != 2:
        return maps
    x1, y1 = np.maximum(a.seen[row, :2], b.seen[row, :2])
    x2, y2 = np.minimum(a.seen[row, 2:], b.seen[row, 2:])
    return maps[0][y1:y2, x1:x2], maps[1][y1:y2, x1:x2]


def _apart(a: Explanation, b: Explanation, row: int) -> str:
    """Of detectors and segmenters: that the two explain different cells of the same class."""
    if a.cell is None or b.cell is None or np.array_equal(a.cell[row], b.cell[row]):
        return ""
    cells = [tuple(int(k) for k in e.cell[row]) for e in (a, b) if e.cell is not None]
    return f"A explains cell {cells[0]}, B cell {cells[1]}"


def measured(a: np.ndarray, b: np.ndarray, remark: str = "") -> dict[str, Any]:
    """The metrics of two maps, as ``Pair`` has them; ``remark``: what else goes into its note."""
    states = [_silence(m) for m in (a, b)]
    note = "; ".join(f"the map of {side} is {state}" for side, state in zip("AB", states, strict=True) if state)
    if states == ["blank", "blank"]:
        return {"pearson": None, "iou": None, "distance_px": None, "distance": None, "note": note}
    longest = diagonal(a.shape)
    if note:
        return {"pearson": 0.0, "iou": 0.0, "distance_px": longest, "distance": 1.0, "note": note}
    pixels = maxima_distance(a, b)
    return {
        "pearson": pearson(a, b),
        "iou": top_iou(a, b),
        "distance_px": pixels,
        "distance": pixels / longest if longest else 0.0,
        "note": remark,
    }


def _silence(heatmap: np.ndarray) -> str:
    if not np.isfinite(heatmap).all():
        return "not finite"
    return "" if (heatmap > 0).any() else "blank"
