"""The question that results answer, where one was asked in words."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.records import Words
from onnx_gradcam.results.side_by_side import SideBySide

Answer = TypeVar("Answer", Explanation, SideBySide)


def with_question(result: Answer, question: str) -> Answer:
    """Return a result each of whose rows says which question it answers."""
    if isinstance(result, SideBySide):
        return replace(result, parts={name: with_question(part, question) for name, part in result.parts.items()})
    words = result.words or (Words(),) * len(result)
    return replace(result, words=tuple(replace(each, question=question) for each in words))
