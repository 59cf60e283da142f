"""Questions about a photo, and sentences that describe it: text in, explanations out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnx_gradcam.errors import InputError, TargetError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.photo import prepare_photo
from onnx_gradcam.methods.table import AUTO
from onnx_gradcam.photos.decode import MAX_PIXELS, decode
from onnx_gradcam.photos.function import PhotoFunction
from onnx_gradcam.photos.inputs import beside_image, check_feeds
from onnx_gradcam.photos.preprocess.choice import Choice, InputSpec, PreprocessLike
from onnx_gradcam.photos.words import (
    BEGINNING,
    ENDING,
    PADDING,
    SPELLINGS,
    Lexicon,
    VocabularyLike,
    find_lexicon,
    text_input,
    token_row,
)
from onnx_gradcam.results.asked import with_question
from onnx_gradcam.results.caption import Caption
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.targets import Each, Target, Tokens

NEVER_SAID = (PADDING, BEGINNING)
OWN = "own"
"""In the place of a sentence: the model's own."""
LONGEST = 30
"""How many words a model may say where nothing else ends its sentence."""


@dataclass(frozen=True)
class Text:
    """How a model reads text.

    Attributes:
        lexicon: its words.
        spec: the input that takes their tokens.
    """

    lexicon: Lexicon
    spec: InputSpec

    def feed(self, tokens: Sequence[int]) -> dict[str, np.ndarray]:
        """Return tokens as the array that the input takes, by its name. Raises ``InputError`` for too many."""
        return {self.spec.name: token_row(tokens, self.spec, self.lexicon)}


def text_of(explainer: Explainer, vocabulary: VocabularyLike, inputs: Mapping[str, Any] | None) -> Text:
    """Return how a model reads text; ``inputs``: arrays for other inputs, by name.

    Raises:
        InputError: the model has no input for words, or nothing says what its words are.
    """
    spec = text_input(explainer.inputs, explainer.image_input.name, tuple(inputs or {}))
    return Text(find_lexicon(vocabulary, explainer.network.metadata), spec)


# --- questions --------------------------------------------------------------------------------------------------


def explain_question(
    explainer: Explainer,
    image: Any,
    question: str,
    target: Target = None,
    method: str = "auto",
    *,
    vocabulary: VocabularyLike = None,
    inputs: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> Explanation:
    """Explain the answer of a model to a question about a photo.

    >>> from importlib.resources import files
    >>> import onnx_gradcam as ogc
    >>> demo = files("onnx_gradcam.models")
    >>> explainer = ogc.Explainer(demo / "shapes-vqa.onnx")
    >>> photo = demo / "images-tasks" / "red-star-left-of-blue-heart.png"
    >>> ogc.explain_question(explainer, photo, "What is left of the heart?").label(0)
    'star'

    Args:
        explainer: a model of two inputs: an image, and the tokens of a text.
        image: a photo as ``Explainer.explain_image`` takes it.
        question: its words; capitals and punctuation do not count where the vocabulary has none.
        target: which answer is explained, as in ``Explainer.explain``; None: the most probable.
        method: as in ``Explainer.explain``.
        vocabulary: the words of the model by token, a file of them, or None: those of its metadata.
        inputs: arrays for still other inputs, by name.
        **keywords: those of ``Explainer.explain_image``.

    Returns:
        One row for each target. Its words hold the question.

    Raises:
        InputError: a word is unknown, there are too many, or the model takes no text.
        OnnxGradcamError: as in ``Explainer.explain_image``.
    """
    text = text_of(explainer, vocabulary, inputs)
    feeds = {**(inputs or {}), **text.feed(text.lexicon.tokens(question))}
    return with_question(explainer.explain_image(image, target, method, inputs=feeds, **keywords), question)


# --- captions ---------------------------------------------------------------------------------------------------


def explain_caption(
    explainer: Explainer,
    image: Any,
    caption: str | None = None,
    method: str = "auto",
    *,
    vocabulary: VocabularyLike = None,
    inputs: Mapping[str, Any] | None = None,
    preprocess: PreprocessLike | Choice | PhotoFunction = "auto",
    max_pixels: int = MAX_PIXELS,
    **keywords: Any,
) -> Caption:
    """Explain a sentence about a photo: a map for the sentence as a whole, and one for each of its words.

    >>> from importlib.resources import files
    >>> import onnx_gradcam as ogc
    >>> demo = files("onnx_gradcam.models")
    >>> explainer = ogc.Explainer(demo / "shapes-caption.onnx")
    >>> caption = ogc.explain_caption(explainer, demo / "images-tasks" / "red-star-left-of-blue-heart.png")
    >>> caption.text
    'a red star left of a blue heart'
    >>> caption.word(2).label(0)
    'star'

    Args:
        explainer: a model that reads an image and a sentence so far, and gives scores for the word after each word.
        image: a photo as ``Explainer.explain_image`` takes it.
        caption: the sentence; None: what the model itself says, the most probable word after each word.
        method: as in ``Explainer.explain``; "auto": gradcam, since a word is no cell of a grid over the image.
        vocabulary: the words of the model by token, a file of them, or None: those of its metadata.
        inputs: arrays for still other inputs, by name.
        preprocess, max_pixels: as in ``Explainer.explain_image``.
        **keywords: further ones of ``Explainer.explain_image``.

    Returns:
        The maps. The score of a word is its logit after the words before it, that of the sentence the sum of these
        (after Selvaraju et al. 2017, section 7.1). The probability of the sentence is the product of those of its
        words.

    Raises:
        InputError: a word is unknown, there are too many, or the model takes no text.
        TargetError: the model gives no scores for each word, or says nothing.
        OnnxGradcamError: as in ``Explainer.explain_image``.
    """
    _check_sequence(explainer)
    text = text_of(explainer, vocabulary, inputs)
    start = _beginning(text.lexicon)
    if caption is None:
        tokens = own_words(explainer, image, text, start, inputs or {}, preprocess, max_pixels)
    else:
        tokens = text.lexicon.tokens(caption)
    each = [Tokens([token], [step], logits=True) for step, token in enumerate(tokens)]
    target = Each([Tokens(tokens, logits=True), *each])
    feeds = {**(inputs or {}), **text.feed((start, *tokens[:-1]))}
    explanation = explainer.explain_image(
        image, target, method_of_words(method), inputs=feeds, preprocess=preprocess, max_pixels=max_pixels, **keywords
    )
    words = tuple(text.lexicon.words[token] for token in tokens)
    return Caption(
        _in_words(explanation, words, _probabilities(explainer, explanation, tokens)), words, caption is None
    )


def method_of_words(method: str) -> str:
    """Return the method for the words of a sentence: "auto" is gradcam.

    A word is no cell of a grid over the image, so the mean of its gradient over space says as much as that of a class.
    """
    return "gradcam" if method == AUTO else method


def _in_words(explanation: Explanation, words: Sequence[str], probabilities: np.ndarray) -> Explanation:
    """Return the rows of a sentence and of its words, called by these, with their probabilities."""
    titles = (" ".join(words), *words)
    named = tuple(replace(each, title=title) for each, title in zip(explanation.words, titles, strict=True))
    each = np.array([probabilities.prod(), *probabilities], np.float32)
    return replace(explanation, words=named, probability=each)


def _probabilities(explainer: Explainer, explanation: Explanation, tokens: Sequence[int]) -> np.ndarray:
    """Return the probability of each word of an image after the words before it, float64 (n,)."""
    scores = _by_step(explainer, explanation.outputs)[: len(tokens)]
    if not explainer.score.activation:
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    elif explainer.score.activation == "LogSoftmax":
        scores = np.exp(scores)
    return np.asarray(scores[np.arange(len(tokens)), list(tokens)])


def own_words(
    explainer: Explainer,
    image: Any,
    text: Text,
    start: int,
    inputs: Mapping[str, Any],
    preprocess: PreprocessLike | Choice | PhotoFunction,
    max_pixels: int,
) -> tuple[int, ...]:
    """Return the tokens that a model says of a photo, the most probable one after each.

    Raises ``TargetError`` where its first token ends the sentence.
    """
    x, _, _ = prepare_photo(decode(image, max_pixels), preprocess, explainer.image_input, explainer.preprocessing)
    length, ending, spoken = text.spec.shape[1], text.lexicon.special(ENDING), [start]
    never = [token for token in map(text.lexicon.special, NEVER_SAID) if token is not None]
    while len(spoken) <= (length if isinstance(length, int) else LONGEST):
        values = beside_image(explainer.image_input.name, x, {**inputs, **text.feed(spoken)})
        scores = _scores_after(explainer, check_feeds(values, explainer.inputs), len(spoken) - 1)
        token = int(np.where(np.isin(np.arange(len(scores)), never), -np.inf, scores).argmax())
        if token == ending:
            break
        spoken.append(token)
    if len(spoken) == 1:
        raise TargetError("the model says nothing of this photo", hint="explain a sentence of yours: --caption TEXT")
    return tuple(spoken[1:])


def _scores_after(explainer: Explainer, feeds: Mapping[str, np.ndarray], step: int) -> np.ndarray:
    """Return the scores (V,) of the word after a step, of one image."""
    name = explainer.score.output
    return np.asarray(_by_step(explainer, explainer.network.untouched.run([name], feeds))[step])


def _by_step(explainer: Explainer, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the scores or probabilities of one image, step by step: float64 (T, V)."""
    scores: np.ndarray = np.asarray(outputs[explainer.score.output], np.float64)
    axis = max(k for k, length in enumerate(scores.shape) if length == explainer.score.count)
    return np.asarray(np.moveaxis(scores, axis, -1).reshape(-1, explainer.score.count))


def _check_sequence(explainer: Explainer) -> None:
    dense = explainer.score.dense
    if dense is None or dense.cell_axes != 1:
        raise TargetError(
            f"score {explainer.score.name!r} has no scores for each word of a sentence",
            hint="a model with an output (N, words, vocabulary); --score NAME where another output is one",
        )


def _beginning(lexicon: Lexicon) -> int:
    start = lexicon.special(BEGINNING)
    if start is None:
        raise InputError(
            "the vocabulary has no token for the beginning of a sentence",
            where=f"{len(lexicon.words)} words",
            hint=f"one of {', '.join(SPELLINGS[BEGINNING])}",
        )
    return start
