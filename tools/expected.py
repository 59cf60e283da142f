"""What an expert reads off a model, what the product reads off it, and where the two differ.

The expectations of `make sweep` stand in tools/expectations.toml, which says what each entry means.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXPECTATIONS = Path(__file__).resolve().parent / "expectations.toml"
MAPS = "layercam"  # the method whose maximum must lie in one of ``places``


@dataclass(frozen=True)
class Expectation:
    """What an expert reads off a model.

    Attributes:
        kind: what its head is, as ``HeadInfo.kind`` says it; "" for any.
        classes: how many classes its score has.
        levels: on how many levels.
        grids: the grids of its layers, each once, as "13x13"; none: any.
        top1: which classes may win; none: any.
        places: for each class that may win x1, y1, x2, y2 as shares of the input, between which the map's maximum lies;
            none: any class, anywhere.
    """

    kind: str
    classes: int
    grids: tuple[str, ...]
    levels: int = 1
    top1: tuple[int, ...] = ()
    places: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Expectation:
        """Return the expectation that a table of the file, or the JSON of one, holds."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}
        return cls(**values)


@dataclass(frozen=True)
class Reading:
    """What the product read off a model and a photo; ``peak``: x, y of the map's maximum as shares of the input."""

    kind: str
    classes: int
    levels: int
    grids: tuple[str, ...]
    top1: int
    peak: tuple[float, float]

    def __str__(self) -> str:
        """Return what does not depend on the photo, in a few words."""
        levels = f", {self.levels} levels" if self.levels > 1 else ""
        return f"{self.kind}, {self.classes} classes{levels}, {' '.join(self.grids)}"


def expectations(path: Path = EXPECTATIONS) -> dict[str, dict[str, Expectation]]:
    """Return the expectations of a file: by the title of a section, and the name of a model."""
    sections = tomllib.loads(path.read_text("utf-8"))
    return {title: {name: Expectation.of(e) for name, e in models.items()} for title, models in sections.items()}


def reading(explainer: Any, explanation: Any) -> Reading:
    """Return what was read: the score of an open ``Explainer``, the layers and the map of an ``Explanation`` of it."""
    from onnx_gradcam.targets import Context

    score = explainer.score
    kind = Context(score, None, ()).kind
    heatmap = explanation.heatmap[0]
    y, x = divmod(int(heatmap.argmax()), heatmap.shape[-1]) if heatmap.ndim == 2 else (0, 0)
    peak = ((x + 0.5) / heatmap.shape[-1], (y + 0.5) / heatmap.shape[-2])
    grids = dict.fromkeys("x".join(map(str, layer.activation.shape[2:])) for layer in explanation.layers)
    levels = len(score.dense.levels) if score.dense is not None else 1
    return Reading(kind, score.count, levels, tuple(grids), int(explanation.class_index[0]), peak)


def differences(expected: Expectation, found: Reading) -> list[str]:
    """Return where a model is not read as an expert reads it, both readings in each line; none where it is."""
    pairs = [
        ("kind", expected.kind or found.kind, found.kind),
        ("classes", expected.classes, found.classes),
        ("levels", expected.levels, found.levels),
        ("layers on", " ".join(expected.grids or found.grids), " ".join(found.grids)),
    ]
    lines = [f"{what}: expected {a}, read {b}" for what, a, b in pairs if a != b]
    winners = expected.top1 or tuple(map(int, expected.places))
    if winners and found.top1 not in winners:
        lines.append(f"top-1: expected {' or '.join(map(str, winners))}, read {found.top1}")
    box = expected.places.get(str(found.top1))
    if box and not _is_inside(found.peak, box):
        lines.append(f"maximum: expected in {box}, read at ({found.peak[0]:.2f}, {found.peak[1]:.2f})")
    return lines


def _is_inside(point: tuple[float, float], box: Sequence[float]) -> bool:
    (x, y), (x1, y1, x2, y2) = point, box
    return x1 <= x <= x2 and y1 <= y <= y2
