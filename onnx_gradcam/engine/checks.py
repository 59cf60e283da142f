"""What leaves an evaluation is finite, or an error says of which image it is not, and where that begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_gradcam.engine.batches import run_in_pieces
from onnx_gradcam.engine.finite import broken_images, trace, unrankable_images
from onnx_gradcam.engine.gradients import Gradients
from onnx_gradcam.engine.passes import Passes
from onnx_gradcam.engine.rows import Rows, parameters_of, rows_of
from onnx_gradcam.engine.rows import score as row_scores
from onnx_gradcam.engine.session import Options
from onnx_gradcam.errors import NotFinite, ScoreError
from onnx_gradcam.graph.names import SCALE_INPUT
from onnx_gradcam.targets import Kind
from onnx_gradcam.targets.written import WrittenScore

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

IN_THE_MODEL = "check the weights and the preprocessing; a 16-bit model that overflows: the same model in float32"
RULED_OUT = "another class: the model rules this one out"
ON_THE_WAY_BACK = (
    "a target layer nearer to the output (--layer NAME), a method without gradients (--method eigencam, "
    "reciprocam), or a 16-bit model in float32"
)


@dataclass(frozen=True, eq=False)
class CheckedModel:
    """The model that is checked.

    Attributes:
        model: the prepared model with the tensors of its score.
        score: its score.
        layers: the names of the values that are explained.
        image_input: the name of the input that is explained.
        options: how sessions are opened.
        batch: how many images the model takes at once, as ``batch_size`` returns it.
        axes: the batch axes of the layers, by name.
    """

    model: ir.Model
    score: WrittenScore
    layers: Sequence[str]
    image_input: str
    options: Options
    batch: int | None
    axes: Mapping[str, int]


def check_forward(subject: CheckedModel, results: Mapping[str, Any], ranking: Array, feeds: Arrays) -> None:
    """Raise ``NotFinite`` for scores that cannot be ranked, and for a layer with NaN or infinity; ``ScoreError`` where
    the scores have no row for each image.

    Other outputs may hold what they like; so may classes that are ruled out, whose score is −∞.
    """
    count, score = len(feeds[subject.image_input]), subject.score.value.name or ""
    if len(ranking) != count:
        raise ScoreError(
            f"the score {score!r} has {len(ranking)} rows for {count} image{'s' * (count > 1)}",
            hint="--score NAME: a value with one row for each image",
            name=score,
        )
    broken = {score: ("scores", unrankable_images(ranking))}
    layers = (name for name in subject.layers if name in results)
    broken |= {
        name: ("activation", broken_images(np.moveaxis(results[name], subject.axes[name], 0), count)) for name in layers
    }
    for name, (role, images) in broken.items():
        if images:
            what = f"the {role} {name!r} hold{'' if role == 'scores' else 's'} NaN or infinity"
            place = _trace(subject, subject.model, name, images[0], feeds)
            raise refusal(what, images, place, IN_THE_MODEL, name)


def check_rows(
    subject: CheckedModel,
    passes: Callable[[Kind], Passes],
    rows: Rows,
    gradients: Gradients | None,
    results: Mapping[str, Any],
    feeds: Arrays,
) -> None:
    """Raise ``NotFinite`` for rows whose score or gradient is NaN or infinite; ``passes`` has the graphs of a kind."""
    scores = row_scores(subject.score, rows, results)
    bad = [int(number) for number in np.flatnonzero(~np.isfinite(scores))]
    if bad:
        row = rows[bad[0]]
        what = f"the score of {row.target.text or f'class {row.target.class_index}'} is {scores[bad[0]]:g}"
        scored = passes(row.target.kind).scored
        given = parameters_of([row.target], scored.inputs)
        place = _trace(subject, scored.model, scored.output, row.image, feeds, given)
        hint = RULED_OUT if scores[bad[0]] == -np.inf else IN_THE_MODEL
        raise refusal(what, _images(rows, bad), place, hint, subject.score.value.name or "")
    for of in () if gradients is None else (gradients.of, *gradients.beside.values()):
        for name, array in of.items():
            if bad := broken_images(np.moveaxis(array, subject.axes[name], 0), len(rows)):
                row = rows[bad[0]]
                whole = passes(row.target.kind).whole
                scale = {whole.names.inputs[SCALE_INPUT]: np.array(1, np.float32)} if whole.is_scaled else {}
                given = {**parameters_of([row.target], whole.names.inputs), **scale}
                what = f"the gradient of the score at {name!r} holds NaN or infinity"
                place = _trace(subject, whole.model, whole.names.gradients[name], row.image, feeds, given)
                raise refusal(what, _images(rows, bad), place, ON_THE_WAY_BACK, name)


def _images(rows: Rows, numbers: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(rows[number].image for number in numbers))


def _trace(
    subject: CheckedModel, model: ir.Model, name: str, image: int, feeds: Arrays, given: Arrays | None = None
) -> str:
    """Return where the value called ``name`` first is not finite, for one image."""
    count = len(feeds[subject.image_input])
    fed = {key: rows_of(array, np.array([image]), count) for key, array in feeds.items()} | dict(given or {})
    return trace(
        model,
        name,
        subject.options,
        lambda session, names: run_in_pieces(session.run, names, fed, subject.batch),
    )


def refusal(problem: str, images: Sequence[int], where: str, hint: str, value: str) -> NotFinite:
    """Return the error for a ``problem`` of some images."""
    listed = ", ".join(map(str, images))
    of_images = f"image {listed}" if len(images) == 1 else f"images {listed}"
    what = f"{problem}, for {of_images}"
    return NotFinite(what, where=where, hint=hint, images=tuple(images), value=value, problem=problem)


@contextmanager
def over_copies(count: int) -> Iterator[None]:
    """Name the original in a ``NotFinite`` that is raised for copies of ``count`` images, which lie copy after copy."""
    try:
        yield
    except NotFinite as error:
        images = sorted({image % count for image in error.images})
        problem = f"{error.problem} in a copy of the input"
        raise refusal(problem, images, error.where, error.hint, error.value) from None
