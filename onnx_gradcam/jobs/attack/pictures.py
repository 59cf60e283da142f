"""An attack as a picture: what the model sees before and after, with the maps of both classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.jobs.attack.result import AttackResult
from onnx_gradcam.results.contact import LONG_SIDE, scales_of, thumbnails
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.picture import contact
from onnx_gradcam.results.picture.contact import Thumbnail
from onnx_gradcam.results.picture.figure import panel_size, resize_photo
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.picture.style import PLAIN, Style

Array = npt.NDArray[Any]
GREY = 127.5


def attack_picture(
    result: AttackResult, before: Explanation, after: Explanation, name: str, style: Style = PLAIN
) -> Picture | None:
    """Return both images of one attack in two lines, with the maps of the same classes; None where none can be drawn.

    Args:
        result: of one image, with its pixels.
        before, after: the maps of the same classes at the image before and after, one row for each class.
        name: of the photo.
        style: how photos and maps are drawn.
    """
    if result.pixels is None or before.heatmap.ndim != 3:
        return None
    lines = []
    for words, pixels, explanation in zip(("before", "after"), result.pixels, (before, after), strict=True):
        shown = replace(explanation, frame=replace(explanation.frame, photo=pixels[0]))
        lines.append([_plain(pixels[0], f"{words}, as the model sees it", name), *thumbnails(shown, words)])
    maps = [each for line in lines for each in line[1:]]
    change, times = _visible(result)
    cells = [*lines[0], _plain(change, f"the change, {times:.3g} times as strong", name), *lines[1]]
    return contact.contact_sheet(
        cells, columns=len(lines[0]) + 1, scales=scales_of(maps, "shared"), title=_title(result, before), style=style
    )


def _plain(pixels: Picture, caption: str, name: str) -> Thumbnail:
    """Return a picture without a map."""
    photo = resize_photo(pixels, panel_size(pixels, LONG_SIDE))
    return Thumbnail(photo, None, None, False, None, name, caption)


def _visible(result: AttackResult) -> tuple[Picture, float]:
    """Return the change as a picture, grey where nothing changed, and how many times as strong it is drawn."""
    assert result.pixels is not None
    change = result.change[0]
    channels = next(axis for axis, extent in enumerate(change.shape) if extent <= 4)
    planes = np.moveaxis(change, channels, -1)
    planes = planes[..., :3] if planes.shape[-1] >= 3 else planes[..., :1].repeat(3, axis=-1)
    largest = float(np.abs(planes).max())
    times = GREY / largest if largest else 1.0
    return np.rint(GREY + planes * times).clip(0, 255).astype(np.uint8), times


def _title(result: AttackResult, before: Explanation) -> Sequence[str]:
    first, last = result.label(int(result.before[0])), result.label(int(result.after[0]))
    verdict = f"{first} → {last}" if first != last else f"still {first}"
    p, q = (float(each[0].max()) for each in (result.probabilities_before, result.probabilities_after))
    unit = "" if result.unit == "input" else f" {result.unit}"
    how = f"{result.method}, {result.norm} ≤ {result.epsilon:g}{unit}, {result.loss}"
    return f"{verdict}  (p {p:.3f} → {q:.3f})", how, f"{before.method}, model {Path(result.model).name}"
