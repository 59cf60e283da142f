"""The measured sections of docs/evaluation.md: Markdown tables of what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from measured import with_interval

from onnx_gradcam.metrics.interval import Mean
from paper.measuring import Figures
from paper.pieces import OCCLUSION, RANDOM_LAYERS, Piece

Measured = Sequence[tuple[Piece, Figures]]


def mean_of(figures: Figures, metric: str, key: str = "map") -> Mean:
    """Return one of the means of a metric: of the map, of chance, of random weights, or of the ceiling."""
    mean: Mapping[str, Any] | None = figures["metrics"][metric][key]
    return Mean(None, None, None, 0, 0) if mean is None else Mean(**mean)


def _cell(figures: Figures, metric: str, key: str = "map") -> str:
    return with_interval(mean_of(figures, metric, key))


def _plain(figures: Figures, metric: str, key: str) -> str:
    value = mean_of(figures, metric, key).value
    return "-" if value is None else f"{value:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _beside(figures: Figures, metric: str) -> list[str]:
    """Return the cells that stand beside each figure: n, chance and random weights."""
    return [
        str(mean_of(figures, metric).n),
        _plain(figures, metric, "chance"),
        _plain(figures, metric, "random_weights"),
    ]


BESIDE = ("n", "chance", "random")


def localisation(measured: Measured) -> str:
    """Return where the box of the map lies, at three shares of the maximum."""
    names = "localisation-error", "localisation-error-30", "localisation-error-50"
    head = ["network", "method", "15 %", "30 %", "50 %", "15 %, class right", *BESIDE, "ceiling", "peak on object"]
    rows = [
        [
            piece.model,
            piece.method,
            *(_cell(figures, name) for name in names),
            _cell(figures, "localisation-error-top1"),
            *_beside(figures, names[0]),
            _plain(figures, names[0], "ceiling"),
            _cell(figures, "pointing"),
        ]
        for piece, figures in measured
    ]
    return _table(head, rows)


def occlusion(measured: Measured) -> str:
    """Return the rank correlation with occlusion."""
    rows = [
        [piece.model, piece.method, _cell(figures, OCCLUSION), *_beside(figures, OCCLUSION)]
        for piece, figures in measured
    ]
    return _table(["network", "method", "rank correlation", *BESIDE], rows)


def discrimination(measured: Measured) -> str:
    """Return how often the maps of two objects tell them apart."""
    head = ["network", "method", "tells apart", *BESIDE, "peak on its object", "chance", "random"]
    rows = [
        [
            piece.model,
            piece.method,
            _cell(figures, "discrimination"),
            *_beside(figures, "discrimination"),
            _cell(figures, "pointing"),
            *_beside(figures, "pointing")[1:],
        ]
        for piece, figures in measured
    ]
    return _table(head, rows)


def layers(measured: Measured) -> str:
    """Return where the maps of each layer lie, the shallowest layer first."""
    head = [
        "network",
        "layer",
        "localisation error",
        *BESIDE,
        "ceiling",
        "peak on object",
        "random",
        "energy",
        "random",
    ]
    rows = [
        [
            piece.model,
            f"`{piece.layer}`",
            _cell(figures, "localisation-error"),
            *_beside(figures, "localisation-error"),
            _plain(figures, "localisation-error", "ceiling"),
            _cell(figures, "pointing"),
            _plain(figures, "pointing", "random_weights"),
            _cell(figures, "energy"),
            _plain(figures, "energy", "random_weights"),
        ]
        for piece, figures in measured
    ]
    return _table(head, rows)


def scores(measured: Measured) -> str:
    """Return where the maps of the logit and of the probability lie."""
    head = ["network", "score", "peak on its object", *BESIDE, "localisation error", "chance", "random"]
    rows = [
        [
            piece.model,
            "probability" if piece.probability else "logit",
            _cell(figures, "pointing"),
            *_beside(figures, "pointing"),
            _cell(figures, "localisation-error"),
            *_beside(figures, "localisation-error")[1:],
        ]
        for piece, figures in measured
    ]
    return _table(head, rows)


def randomisation(measured: Measured) -> str:
    """Return how alike maps stay while layer after layer loses its weights."""
    rows = [
        [piece.model, piece.method, _cell(figures, RANDOM_LAYERS), str(mean_of(figures, RANDOM_LAYERS).n)]
        for piece, figures in measured
    ]
    return _table(["network", "method", "rank correlation", "n"], rows)


def attacks(measured: Measured) -> str:
    """Return where the map of the true class lies before and after an attack."""
    head = ["network", "scenes", "flipped", "right", "peak on object", *BESIDE, "energy", "chance", "random"]
    rows = [
        [
            piece.model,
            f"FGSM, ε = {figures['epsilon']}/255" if piece.attacked else "as drawn",
            f"{figures['flipped']:.0%}" if piece.attacked else "-",
            f"{figures['accuracy']:.0%}",
            _cell(figures, "pointing"),
            *_beside(figures, "pointing"),
            _cell(figures, "energy"),
            *_beside(figures, "energy")[1:],
        ]
        for piece, figures in measured
    ]
    return _table(head, rows)


def real_photos(measured: Sequence[tuple[str, Figures]]) -> str:
    """Return the figures of each method on real photos."""
    head = ["method", "peak in box", "localisation error", "n", "with occlusion", "with random layers"]
    rows = []
    for method, figures in measured:
        first, second, third = (
            f"{_cell(figures, metric)} (chance {_plain(figures, metric, 'chance')}, "
            f"random {_plain(figures, metric, 'random_weights')})"
            for metric in ("pointing", "localisation-error", OCCLUSION)
        )
        n = str(mean_of(figures, OCCLUSION).n)
        rows.append([method, first, second, n, third, _cell(figures, RANDOM_LAYERS)])
    return _table(head, rows)


SECTIONS: Mapping[str, Callable[[Measured], str]] = {
    "localisation": localisation,
    "occlusion": occlusion,
    "discrimination": discrimination,
    "layers": layers,
    "scores": scores,
    "randomisation": randomisation,
    "attacks": attacks,
}
"""The name of a measured section of the page → what writes it."""
