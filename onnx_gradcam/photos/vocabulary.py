"""The words of the tokens that a model of texts reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from onnx_gradcam.errors import InputError

VOCABULARY_KEY = "onnx_gradcam.vocabulary"
"""The metadata key of a model under which its words stand, as a JSON list."""
FORMS = 'one word a line, a JSON list, or a JSON object {"word": id}'
Vocabulary = tuple[str, ...]


def vocabulary_from(metadata: Mapping[str, str]) -> Vocabulary | None:
    """Return the words that a model brings in its metadata, None where it brings none that can be read."""
    try:
        return _words(json.loads(metadata[VOCABULARY_KEY]))
    except (KeyError, ValueError):
        return None


def read_vocabulary(path: str | os.PathLike[str]) -> Vocabulary:
    """Return the words in a file, by their ids: one a line, a JSON list, or a JSON object {word: id}.

    Raises:
        InputError: the file cannot be read, or holds no words.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
        if Path(path).suffix.lower() == ".json":
            return _words(json.loads(text))
    except (OSError, ValueError) as error:
        what = f"cannot read the vocabulary '{os.fspath(path)}': {error}"
        raise InputError(what, hint=FORMS, path=path) from None
    return tuple(text.split("\n")[: text.count("\n") + (not text.endswith("\n"))])


def _words(content: object) -> Vocabulary:
    if isinstance(content, Mapping) and content and all(isinstance(token, int) for token in content.values()):
        by_id = {int(token): str(word) for word, token in content.items()}
        return tuple(by_id.get(token, f"#{token}") for token in range(max(by_id) + 1))
    if isinstance(content, list):
        return tuple(str(word) for word in content)
    raise ValueError(f"no words: {FORMS}")


def token_words(tokens: npt.NDArray[Any], vocabulary: Sequence[str] | None) -> tuple[tuple[str, ...], ...]:
    """Return the words of texts (N, n) of token ids, "#17" for an id that has none; () where nothing names them.

    Arrays of other numbers and of more axes have no words.

    >>> import numpy as np
    >>> token_words(np.array([[1, 0, 7]]), ["the", "dog"])
    (('dog', 'the', '#7'),)
    """
    if vocabulary is None or tokens.dtype.kind not in "iu" or tokens.ndim != 2:
        return ()
    count = len(vocabulary)
    return tuple(tuple(vocabulary[t] if 0 <= t < count else f"#{t}" for t in text) for text in tokens.tolist())
