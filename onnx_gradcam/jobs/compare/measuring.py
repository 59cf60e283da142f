"""Image by image: both models are asked, and their maps are measured against each other."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import InputError, NotFinite
from onnx_gradcam.jobs.compare.agreement import agreement_of
from onnx_gradcam.jobs.compare.matching import Match
from onnx_gradcam.jobs.compare.pairs import Pair, Side
from onnx_gradcam.jobs.compare.questions import Answers, Bench
from onnx_gradcam.jobs.compare.worst import WorstPair, worst_of
from onnx_gradcam.results.explanation import Explanation


@dataclass(frozen=True)
class Measured:
    """What was measured of one image, or of the images in one .npy file.

    Attributes:
        a, b: the two sides.
        pairs: one for each image and target.
        warnings: what the user should know.
    """

    a: Side
    b: Side
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Measurements:
    """What was measured of all images.

    Attributes:
        measured: for each image or file.
        errors: images that could not be explained, each with the reason.
        worst: the pairs that agree least, with their maps, the worst first.
    """

    measured: tuple[Measured, ...]
    errors: tuple[tuple[str, str], ...]
    worst: tuple[WorstPair, ...]


def measure(bench: Bench, subjects: Sequence[Any], keep: int, report: Callable[[Pair], None]) -> Measurements:
    """Return what both models see in each image.

    Args:
        bench: the two models, and how they are asked.
        subjects: the images.
        keep: how many of the worst pairs keep their maps.
        report: is called with each pair.

    Raises:
        InputError, NotFinite: the only image cannot be explained.
        InputError: none can.
        OnnxGradcamError: what no other image would change.
    """
    measured: list[Measured] = []
    errors: list[tuple[str, str]] = []
    worst: list[WorstPair] = []
    for k, subject in enumerate(subjects):
        name = str(subject) if isinstance(subject, str | os.PathLike) else str(k)
        try:
            answers = bench.ask(subject)
        except (InputError, NotFinite) as error:
            if len(subjects) == 1:
                raise
            errors.append((name, str(error)))
            continue
        digest = _hash(subject)
        pairs = tuple(_pair(answers, name, digest, each) for each in answers.matches)
        worst = _keep_worst(worst, answers, dict(zip(pairs, answers.matches, strict=True)), keep)
        explanations = [answers.a, *(each.b for each in answers.matches)]
        warnings = dict.fromkeys(warning for each in explanations for warning in each.warnings)
        measured.append(Measured(_side(answers.a), _side(answers.matches[0].b), pairs, tuple(warnings)))
        for pair in pairs:
            report(pair)
    if not measured:
        raise InputError(
            f"none of the {len(subjects)} images could be compared",
            where=errors[0][1].splitlines()[0] if errors else "",
            hint="photos, or .npy arrays in the form that both models take",
        )
    return Measurements(tuple(measured), tuple(errors), tuple(worst))


def sides_of(outcome: Measurements) -> tuple[Side, Side]:
    """Return the two sides of a comparison: those of the first photo, which know the preprocessing, else of arrays."""
    first = next((each for each in outcome.measured if each.a.preprocess is not None), outcome.measured[0])
    return first.a, first.b


def _hash(subject: Any) -> str | None:
    """Return the sha256 of an image that is a file, or its bytes."""
    if isinstance(subject, bytes):
        return hashlib.sha256(subject).hexdigest()
    is_file = isinstance(subject, str | os.PathLike) and Path(subject).is_file()
    return hashlib.sha256(Path(subject).read_bytes()).hexdigest() if is_file else None


def _keep_worst(
    worst: Sequence[WorstPair], answers: Answers, matches: Mapping[Pair, Match], count: int
) -> list[WorstPair]:
    """Return the worst of the pairs that are kept already and those of an image, with their maps."""
    kept = {each.pair: each for each in worst}
    again = worst_of([*kept, *matches], count)
    return [kept[pair] if pair in kept else _with_maps(answers, pair, matches[pair]) for pair in again]


def _with_maps(answers: Answers, pair: Pair, of: Match) -> WorstPair:
    return WorstPair(pair, answers.a[of.row_a], of.b[of.row_b])


def _pair(answers: Answers, name: str, sha256: str | None, of: Match) -> Pair:
    """Compare a row of A with the row of B that is about the same."""
    a, row = answers.a, of.row_a
    agreement = agreement_of(*_seen_by_both(a, row, of.b, of.row_b))
    top1_a, top1_b = answers.top1(of.image)
    return Pair(
        image=name,
        sha256=sha256,
        image_index=of.image,
        view_index=of.view,
        class_index=int(a.class_index[row]),
        label=a.label(row),
        target=a.target(row),
        top1_a=top1_a,
        top1_b=top1_b,
        pearson=agreement.pearson,
        iou=agreement.iou,
        distance_px=agreement.distance_px,
        distance=agreement.distance,
        note=agreement.note or _apart(a, row, of.b, of.row_b),
    )


def _side(explanation: Explanation) -> Side:
    of = explanation.provenance
    return Side(
        model=of.model,
        sha256=of.sha256,
        providers=of.providers,
        provider_options=of.provider_options,
        precision=of.precision,
        score=explanation.score_name,
        layers=tuple(layer.name for layer in explanation.layers),
        attributed=explanation.attributed,
        preprocess=None if of.preprocess is None else of.preprocess.record(),
    )


def _seen_by_both(a: Explanation, row_a: int, b: Explanation, row_b: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two maps within what both models saw: outside both are 0, which is no agreement."""
    maps = a.heatmap[row_a], b.heatmap[row_b]
    if maps[0].ndim != 2:
        return maps
    x1, y1 = np.maximum(a.seen[row_a, :2], b.seen[row_b, :2])
    x2, y2 = np.minimum(a.seen[row_a, 2:], b.seen[row_b, 2:])
    return maps[0][y1:y2, x1:x2], maps[1][y1:y2, x1:x2]


def _apart(a: Explanation, row_a: int, b: Explanation, row_b: int) -> str:
    """Return a note where two models of many scores per image explain different cells of the same class."""
    if a.cell is None or b.cell is None or np.array_equal(a.cell[row_a], b.cell[row_b]):
        return ""
    cells = [tuple(int(k) for k in e.cell[row]) for e, row in ((a, row_a), (b, row_b)) if e.cell is not None]
    return f"A explains cell {cells[0]}, B cell {cells[1]}"
