"""Questions and captions: the words become tokens, the map lies on the colour that a word names."""

from __future__ import annotations

import numpy as np
import pytest
from text_nets import CAPTION_WORDS, CLEAR, answering, log_probabilities, photo, telling

import onnx_gradcam as ogc
from onnx_gradcam.targets import parse


def peak(explanation: ogc.Explanation, row: int = 0) -> tuple[int, int]:
    y, x = np.unravel_index(explanation.heatmap[row].argmax(), explanation.heatmap.shape[1:])
    return int(y), int(x)


@pytest.mark.parametrize("length", [6, "T"])
@pytest.mark.parametrize(("question", "answer", "low"), [("How strong is red?", "red", 1), ("is GREEN", "green", 5)])
def test_the_map_of_an_answer_lies_on_what_was_asked(length: int | str, question: str, answer: str, low: int) -> None:
    explanation = ogc.explain_question(ogc.Explainer(answering(length)), photo(), question)
    assert explanation.label(0) == answer
    assert explanation.score[0] == pytest.approx(4 / 64)
    assert all(low <= v <= low + 1 for v in peak(explanation))
    assert explanation.question(0) == question
    assert explanation.as_dict()["rows"][0]["question"] == question
    assert explanation.title(0)[0].startswith(f"{question} {answer} (")


def test_another_answer_than_the_first_is_explained_when_named() -> None:
    explanation = ogc.explain_question(ogc.Explainer(answering()), photo(), "red green", target="green")
    assert explanation.label(0) == "green"
    assert all(5 <= v <= 6 for v in peak(explanation))


@pytest.mark.parametrize("length", [5, "T"])
def test_the_own_caption_and_its_words(length: int | str) -> None:
    caption = ogc.explain_caption(ogc.Explainer(telling(length)), photo())
    assert caption.words == ("red", "green")
    assert caption.is_own
    expected = log_probabilities(caption.words)
    np.testing.assert_allclose(caption.explanation.score, [2 * (CLEAR + 0.4), *[CLEAR + 0.4] * 2], rtol=1e-5)
    np.testing.assert_allclose(caption.explanation.probability, np.exp([expected.sum(), *expected]), rtol=1e-5)
    assert caption.explanation.method == "gradcam"
    assert caption.explanation.unit(0) == "logit"
    assert [caption.explanation.label(row) for row in range(3)] == ["red green", "red", "green"]
    assert all(1 <= v <= 2 for v in peak(caption.word(0)))
    assert all(5 <= v <= 6 for v in peak(caption.word(1)))
    whole = caption.whole.heatmap[0]
    assert whole[1:3, 1:3].min() > 0.1
    assert whole[5:7, 5:7].min() > 0.1
    assert whole[1:3, 5:7].max() == 0


def test_a_given_sentence() -> None:
    caption = ogc.explain_caption(ogc.Explainer(telling()), photo(), "Green, red.")
    assert caption.text == "green red"
    assert not caption.is_own
    np.testing.assert_allclose(caption.explanation.score, [0.8, 0.4, 0.4], rtol=1e-5)
    np.testing.assert_allclose(caption.explanation.probability[1:], np.exp(log_probabilities(caption.words)), rtol=1e-5)
    assert all(5 <= v <= 6 for v in peak(caption.word(0)))


def test_the_strip_and_the_files(tmp_path) -> None:
    caption = ogc.explain_caption(ogc.Explainer(telling()), photo())
    figure = caption.figure()
    assert figure.dtype == np.uint8
    assert figure.shape[1] > 3 * 240
    caption.save(tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    stem = "explanation.gradcam.caption-red-green"
    assert names == [f"{stem}.1-red.npy", f"{stem}.2-green.npy", f"{stem}.png", f"{stem}.sentence.npy", "manifest.json"]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / f"{stem}.2-green.npy"), caption.explanation.heatmap[2])
    assert caption.as_dict()["caption"] == "red green"


def test_unknown_words_are_named_with_the_nearest() -> None:
    with pytest.raises(ogc.InputError, match=r"the words 'strang', 'gren'") as error:
        ogc.explain_question(ogc.Explainer(answering()), photo(), "how strang is gren")
    assert "for 'strang' 'strong'" in error.value.hint
    assert "for 'gren' 'green'" in error.value.hint


def test_too_many_words() -> None:
    with pytest.raises(ogc.InputError, match="7 words are too many"):
        ogc.explain_question(ogc.Explainer(answering(6)), photo(), "how strong is red red red red")
    with pytest.raises(ogc.InputError, match="6 words are too many"):
        ogc.explain_caption(ogc.Explainer(telling(5)), photo(), "red red red red red red")


def test_a_model_without_vocabulary_takes_one_from_the_caller() -> None:
    explainer = ogc.Explainer(answering(vocabulary=False))
    with pytest.raises(ogc.InputError, match="nothing says which words") as error:
        ogc.explain_question(explainer, photo(), "red")
    assert "--vocabulary FILE" in error.value.hint
    words = ["<pad>", "wie", "stark", "ist", "rot", "grün", "blau"]
    assert ogc.explain_question(explainer, photo(), "wie stark ist grün?", vocabulary=words).label(0) == "green"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [("", ogc.InputError, "has no words"), ("?!", ogc.InputError, "has no words")],
)
def test_a_question_without_words(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ogc.explain_question(ogc.Explainer(answering()), photo(), text)


def test_models_that_read_no_words_and_tell_none() -> None:
    explainer = ogc.Explainer(answering())
    with pytest.raises(ogc.TargetError, match="no scores for each word"):
        ogc.explain_caption(explainer, photo())
    with pytest.raises(ogc.InputError, match="no input for the words"):
        ogc.explain_question(explainer, photo(), "red", inputs={"question": np.zeros((1, 6), np.int64)})


def test_a_vocabulary_without_a_beginning() -> None:
    words = ["a", "b", "c", *CAPTION_WORDS[3:]]
    with pytest.raises(ogc.InputError, match="no token for the beginning"):
        ogc.explain_caption(ogc.Explainer(telling("T")), photo(), "red", vocabulary=words)


@pytest.mark.parametrize(("text", "score"), [("logits:3@0,4@1", 2 * (CLEAR + 0.4)), ("logits:red", CLEAR + 0.4)])
def test_logits_of_tokens_as_a_target(text: str, score: float) -> None:
    explainer = ogc.Explainer(telling())
    start = CAPTION_WORDS.index("<start>")
    tokens = np.array([[start, CAPTION_WORDS.index("red"), 0, 0, 0]])
    target = parse([text], explainer.score.count, explainer.labels)
    explanation = explainer.explain_image(photo(), target, inputs={"caption": tokens})
    assert explanation.score[0] == pytest.approx(score, rel=1e-5)
    assert explanation.target(0).startswith("logits:")
    assert explanation.unit(0) == "logit"


def test_a_sure_word_keeps_its_share_of_the_map_of_a_sentence() -> None:
    """Of log p the gradient is (1 − p) times as large: the map of a sentence would be that of its doubtful words."""
    explainer = ogc.Explainer(telling())
    start, red, green = (CAPTION_WORDS.index(word) for word in ("<start>", "red", "green"))
    tokens = np.array([[start, red, 0, 0, 0]])
    values = []
    for logits in (True, False):
        target = ogc.Tokens([red, green], [0, 1], logits)
        cam = explainer.explain_image(photo(), target, "hirescam", inputs={"caption": tokens}).cam[0]
        values.append(float(cam[1, 1]))
    p = np.exp(log_probabilities(("red", "green")))
    assert values[0] == pytest.approx(0.1, rel=1e-5)
    of_others = np.exp(0.4) / (np.exp(0.4 + CLEAR) + np.exp(0.4) + 4)  # P(red) where green follows
    assert values[1] == pytest.approx(0.1 * (1 - p[0] - of_others), rel=1e-4)
