"""Text for a model that reads tokens: the words of its vocabulary, and the numbers that stand for a question."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.errors import InputError, nearest
from onnx_gradcam.photos.inputs import as_array, takes_tokens
from onnx_gradcam.photos.preprocess.choice import InputSpec
from onnx_gradcam.photos.vocabulary import FORMS, VOCABULARY_KEY, Vocabulary, read_vocabulary, vocabulary_from

PADDING, BEGINNING, ENDING = "padding", "beginning", "ending"
SPELLINGS: Mapping[str, tuple[str, ...]] = {
    PADDING: ("<pad>", "[pad]", "<blank>"),
    BEGINNING: ("<start>", "<s>", "<bos>", "<sos>", "[bos]", "[cls]"),
    ENDING: ("<end>", "</s>", "<eos>", "[eos]", "[sep]"),
}
"""How vocabularies spell the tokens that are no words, in lower case."""
VocabularyLike = str | os.PathLike[str] | Sequence[str] | None


@dataclass(frozen=True)
class Lexicon:
    """The words that a model reads or writes, to be looked up.

    >>> lexicon = Lexicon(("<pad>", "what", "colour", "is", "the", "star"))
    >>> lexicon.tokens("What colour is the star?")
    (1, 2, 3, 4, 5)

    Attributes:
        words: the word of each token.
    """

    words: Vocabulary

    def special(self, name: str) -> int | None:
        """Return the token for padding, the beginning or the ending; None where the vocabulary has none."""
        return next((k for k, word in enumerate(self.words) if word.lower() in SPELLINGS[name]), None)

    def tokens(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a text. Capitals and punctuation do not count where the vocabulary has none.

        Raises:
            InputError: the text has no words, or some that the vocabulary lacks.
        """
        known = {word: k for k, word in reversed(tuple(enumerate(self.words)))}
        folded = {word.lower(): k for word, k in reversed(tuple(known.items()))}
        pieces = re.findall(r"[\w'-]+|[^\w\s]", text)
        words = [word for word in pieces if word in known or word.lower() in folded or re.match(r"\w", word)]
        if not words:
            raise InputError(f"{text!r} has no words", hint=f"words of the model: {nearest('', self.plain)}", text=text)
        unknown = [word for word in dict.fromkeys(words) if word not in known and word.lower() not in folded]
        if unknown:
            close = "; ".join(f"for {word!r} {nearest(word, self.plain)}" for word in unknown)
            raise InputError(
                f"the model does not know the word{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}",
                where=f"in {text!r}; its vocabulary has {len(self.words)} words",
                hint=close,
                words=tuple(unknown),
            )
        return tuple(known[word] if word in known else folded[word.lower()] for word in words)

    def text(self, tokens: Sequence[int]) -> str:
        """Return the words of tokens."""
        return " ".join(self.words[token] for token in tokens)

    @property
    def plain(self) -> list[str]:
        """Return the words that are words, without the tokens for padding, beginning and ending."""
        marks = {spelling for spellings in SPELLINGS.values() for spelling in spellings}
        return [word for word in self.words if word.lower() not in marks]


def find_lexicon(request: VocabularyLike, metadata: Mapping[str, str]) -> Lexicon:
    """Return the words of a model.

    Args:
        request: the words themselves, a file of them (``read_vocabulary``), or None: those of the model's metadata.
        metadata: the metadata properties of the model.

    Raises:
        InputError: nothing says what the words are, or the file cannot be read.
    """
    if isinstance(request, str | os.PathLike):
        return Lexicon(read_vocabulary(request))
    words = vocabulary_from(metadata) if request is None else request
    if words is None:
        raise InputError(
            "nothing says which words the model's tokens are",
            where=f"its metadata has no '{VOCABULARY_KEY}'",
            hint=f"--vocabulary FILE ({FORMS}), or the tokens themselves: --input NAME=FILE.npy",
        )
    return Lexicon(tuple(words))


def text_input(specs: Mapping[str, InputSpec], image: str, fed: Sequence[str] = ()) -> InputSpec:
    """Return the input that takes tokens: whole numbers of shape (N, T), and no array is given for it.

    Args:
        specs: the inputs of the model, by name.
        image: the name of the input that takes the photo.
        fed: the inputs for which there are arrays.

    Raises:
        InputError: there is none, or several.
    """
    fitting = [spec for name, spec in specs.items() if name not in (image, *fed) and takes_tokens(spec)]
    if len(fitting) != 1:
        names = ", ".join(map(str, fitting)) or ", ".join(map(str, specs.values()))
        raise InputError(
            f"the model has {len(fitting) or 'no'} input{'s' * (len(fitting) > 1)} for the words of a text "
            "(whole numbers, one row of tokens for each image)",
            where=f"inputs {names}",
            hint="--input NAME=FILE.npy for all others" if fitting else "a model that reads image and text",
            names=tuple(spec.name for spec in fitting),
        )
    return fitting[0]


def token_row(tokens: Sequence[int], spec: InputSpec, lexicon: Lexicon) -> np.ndarray:
    """Return tokens as the row (1, T) that an input takes, padded where its length is fixed.

    Raises:
        InputError: there are more tokens than the input takes, or no token for padding is known.
    """
    length = spec.shape[1]
    if not isinstance(length, int) or len(tokens) == length:
        return as_array([list(tokens)], spec.name).astype(spec.dtype)
    if len(tokens) > length:
        raise InputError(
            f"{len(tokens)} words are too many: {lexicon.text(tokens)!r}",
            where=f"input {spec} takes {length}",
            hint=f"a text of at most {length} words",
            count=len(tokens),
            longest=length,
        )
    padding = lexicon.special(PADDING)
    if padding is None:
        raise InputError(
            f"{len(tokens)} words for an input of {length}, and the vocabulary has no token for padding",
            where=f"input {spec}",
            hint=f"a vocabulary with one of {', '.join(SPELLINGS[PADDING])}, or --input {spec.name}=FILE.npy",
        )
    return as_array([[*tokens, *[padding] * (length - len(tokens))]], spec.name).astype(spec.dtype)
