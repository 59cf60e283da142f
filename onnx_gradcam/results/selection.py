"""Some rows of an explanation, with the warnings that are about these rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.results import doubts, notes

if TYPE_CHECKING:
    from onnx_gradcam.results.explanation import Explanation

BY_ROW = "image_index view_index class_index score probability is_blank heatmap seen scale".split()
"""The fields with an entry for each row."""
BY_ROW_OR_NONE = "cell box attribution is_clipped".split()
"""The fields with an entry for each row, or None."""


def some_rows(explanation: Explanation, rows: int | slice | Sequence[int] | npt.NDArray[Any]) -> Explanation:
    """Return some of the rows, in the order of ``rows``, as ``Explanation.__getitem__`` describes it."""
    which = np.atleast_1d(np.arange(len(explanation))[rows])
    names = [*BY_ROW, *(name for name in BY_ROW_OR_NONE if getattr(explanation, name) is not None)]
    completeness = explanation.completeness
    some = replace(
        explanation,
        **{name: getattr(explanation, name)[which] for name in names},
        layers=tuple(layer.rows(which) for layer in explanation.layers),
        words=tuple(explanation.words[int(row)] for row in which) if explanation.words else (),
        frame=explanation.frame.rows(which),
        completeness=None if completeness is None else completeness.rows(which),
    )
    counting = [*_about_doubts(explanation), *_about_blank(explanation)]
    others = [warning for warning in explanation.warnings if warning not in counting]
    return replace(some, warnings=(*others, *_about_doubts(some), *_about_blank(some)))


def warnings_beside_blank(explanation: Explanation) -> list[str]:
    """Return the warnings that are not about blank maps."""
    about_blank = _about_blank(explanation)
    return [warning for warning in explanation.warnings if warning not in about_blank]


def _about_doubts(explanation: Explanation) -> list[str]:
    return doubts.sentences([words.doubt for words in explanation.words])


def _about_blank(explanation: Explanation) -> list[str]:
    return notes.blank_maps(explanation.is_blank, explanation.layers, explanation.method)
