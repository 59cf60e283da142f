"""The words of tokens: files, metadata, and ids that have no word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnx_gradcam.errors import InputError
from onnx_gradcam.photos.vocabulary import VOCABULARY_KEY, read_vocabulary, token_words, vocabulary_from


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("words.txt", "the\ndog\nbarks\n", ("the", "dog", "barks")),
        ("words.txt", "the\ndog\n\nbarks", ("the", "dog", "", "barks")),
        ("words.txt", "\ufeffthe\nüber", ("the", "über")),
        ("words.json", '["the", "dog"]', ("the", "dog")),
        ("words.json", '{"dog": 2, "the": 0}', ("the", "#1", "dog")),
    ],
)
def test_forms_of_files(name: str, content: str, expected: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    assert read_vocabulary(tmp_path / name) == expected


@pytest.mark.parametrize("content", ["{", '"dog"', '{"dog": "one"}', "{}", "3"])
def test_what_holds_no_words_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "words.json").write_text(content, "utf-8")
    with pytest.raises(InputError, match="cannot read the vocabulary") as error:
        read_vocabulary(tmp_path / "words.json")
    assert "one word a line" in error.value.hint
    assert vocabulary_from({VOCABULARY_KEY: content}) is None
    with pytest.raises(InputError):
        read_vocabulary(tmp_path / "missing.txt")


def test_words_of_a_model() -> None:
    assert vocabulary_from({VOCABULARY_KEY: '["the", "dog"]'}) == ("the", "dog")
    assert vocabulary_from({}) is None


def test_ids_without_words_stay_numbers() -> None:
    tokens = np.array([[0, 1, 2], [-1, 1, 1]])
    assert token_words(tokens, ["the", "dog"]) == (("the", "dog", "#2"), ("#-1", "dog", "dog"))
    assert token_words(tokens, None) == ()
    assert token_words(tokens.astype(np.float32), ["the"]) == ()
    assert token_words(tokens[None], ["the"]) == ()
