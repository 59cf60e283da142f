"""The words of the tokens that were explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnx_gradcam.errors import InputError
from onnx_gradcam.photos.vocabulary import token_words
from onnx_gradcam.results.explanation import Explanation


def with_words(explanation: Explanation, vocabulary: Sequence[str]) -> Explanation:
    """Return an explanation of texts whose figures show words, each on the colour of its evidence.

    A model that brings its words in the metadata key ``onnx_gradcam.vocabulary`` (a JSON list) needs none of this.

    Args:
        explanation: of token ids (N, n).
        vocabulary: the word of each id.

    Returns:
        The same explanation with ``frame.words``, the words of each text.

    Raises:
        InputError: no token ids were explained.
    """
    x = explanation.frame.x
    words = () if x is None else token_words(x, vocabulary)
    if not words:
        raise InputError("no tokens were explained, and no words fit", hint="an array of whole numbers (N, tokens)")
    return replace(explanation, frame=replace(explanation.frame, words=words))
