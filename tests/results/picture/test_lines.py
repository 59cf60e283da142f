"""Signals and texts: the colour of the evidence stands where its sample or its word stands."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.results.picture.evidence import paper_bar, paper_colours
from onnx_gradcam.results.picture.figure import Scale
from onnx_gradcam.results.picture.overlay import AGAINST, FOR
from onnx_gradcam.results.picture.signal import FOOT, MOST_CHANNELS, WIDTH, signal_panel
from onnx_gradcam.results.picture.words import GAP, LINE, words_panel
from onnx_gradcam.results.picture.words import WIDTH as TEXT_WIDTH


def test_colours_by_hand() -> None:
    colours = paper_colours(np.array([-1, 0, 0.5, 1]))
    assert colours.tolist()[:2] == [list(AGAINST), [255, 255, 255]]
    np.testing.assert_allclose(colours[2], (255 + np.array(FOR)) / 2, atol=0.5)
    assert tuple(colours[3]) == FOR


def test_the_colours_of_the_bar_are_those_of_the_map() -> None:
    bar = paper_bar(Scale(2.0, "logit"), 101, signed=True)
    assert (bar.ticks, bar.unit) == (("-2", "0", "2"), "logit")
    np.testing.assert_array_equal(bar.colours[[0, 50, 100]], [AGAINST, (255, 255, 255), FOR])
    assert paper_bar(Scale(2.0, "logit"), 101, signed=False).ticks == ("0", "1", "2")


def test_each_sample_has_its_column() -> None:
    level = np.zeros(20, np.float32)
    level[13] = 1
    values = np.stack([np.linspace(-1, 1, 20), np.zeros(20)])
    picture = signal_panel(values, level, Scale(), False).picture
    row = picture[40]  # between two curves and all letters
    columns = np.flatnonzero((row == FOR).all(axis=1))
    assert columns.min() == 13 * WIDTH // 20
    assert columns.max() == 14 * WIDTH // 20 - 1


def test_a_curve_goes_through_its_samples() -> None:
    values = np.array([[0.0, 1.0, 0.0, 0.0]])
    picture = signal_panel(values, np.zeros(4, np.float32), Scale(), False).picture[:-FOOT]
    dark = (picture.max(axis=2) < 60).any(axis=1)
    peak = np.flatnonzero(dark)[0]
    at_peak = np.flatnonzero(picture[peak].max(axis=1) < 60)
    assert abs(at_peak.mean() - 1.5 * WIDTH / 4) < 2  # the middle of the second of four samples


def test_channels_that_are_left_out_are_counted() -> None:
    panel = signal_panel(np.zeros((MOST_CHANNELS + 3, 8)), np.zeros(8), Scale(), False)
    assert panel.caption == [f"the first {MOST_CHANNELS} of {MOST_CHANNELS + 3} channels"]


def test_each_word_has_its_colour() -> None:
    level = np.array([1, 0, -1], np.float32)
    picture = words_panel(["strong", "neutral", "against"], level, Scale(), True).picture
    row = picture[GAP + 1]  # above the letters
    assert tuple(row[1]) == FOR
    blue = np.flatnonzero((row == AGAINST).all(axis=1))
    red = np.flatnonzero((row == FOR).all(axis=1))
    assert red.max() < blue.min()
    assert (row[red.max() + GAP + 2 : blue.min() - GAP - 2] == 255).all()


def test_a_long_text_goes_on_in_the_next_line() -> None:
    words = ["word"] * 40
    picture = words_panel(words, np.ones(40, np.float32), Scale(), False).picture
    assert picture.shape[1] == TEXT_WIDTH
    lines = [(picture[k * LINE + GAP + 1] == FOR).all(axis=1).any() for k in range(len(picture) // LINE)]
    assert sum(lines) >= 2
    assert all(lines[: sum(lines)])
