"""A map lands where it belongs: the CAM of this model is the brightness of its input."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from brightness import CELL, PREPROCESS, SIDE, brightness_model

import onnx_gradcam as ogc


@pytest.fixture(scope="module")
def explainer() -> Any:
    with ogc.Explainer(brightness_model()) as found:
        yield found


def photo(size: tuple[int, int], dot: tuple[int, int], orientation: int) -> bytes:
    """A PNG whose stored pixels, once turned as EXIF says, are black with a 7 × 7 white dot at (y, x)."""
    image_module = pytest.importorskip("PIL.Image", reason="pillow: not installed")
    shown = np.zeros((*size, 3), np.uint8)
    y, x = dot
    shown[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = 255
    # How a viewer turns the stored pixels is undone here: 6 is shown turned clockwise, 8 anticlockwise.
    stored = {
        1: shown,
        2: shown[:, ::-1],
        3: shown[::-1, ::-1],
        4: shown[::-1],
        5: shown.transpose(1, 0, 2),
        6: np.rot90(shown, 1),
        7: shown[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(shown, -1),
    }[orientation]
    image = image_module.fromarray(np.ascontiguousarray(stored))
    exif = image.getexif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["crop", "stretch", "letterbox"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_maximum_is_the_dot(explainer: Any, resize: str, orientation: int) -> None:
    rng = np.random.default_rng(orientation)
    for size in [(131, 203), (203, 131)]:
        x1, y1, x2, y2 = seen(explainer, size, resize)
        for _ in range(10):
            dot = (int(rng.integers(y1 + 4, y2 - 4)), int(rng.integers(x1 + 4, x2 - 4)))
            explanation = explainer.explain_image(
                photo(size, dot, orientation), target=0, preprocess={**PREPROCESS, "resize": resize}
            )
            heatmap = explanation.heatmap[0]
            assert heatmap.shape == size
            found = np.unravel_index(heatmap.argmax(), heatmap.shape)
            cell = max(
                (y2 - y1) * CELL / used(size, resize)[0],
                (x2 - x1) * CELL / used(size, resize)[1],
            )
            assert max(abs(found[0] - dot[0]), abs(found[1] - dot[1])) <= cell, (size, dot, found, cell)


def seen(explainer: Any, size: tuple[int, int], resize: str) -> tuple[int, ...]:
    blank = np.full((*size, 3), 200, np.uint8)
    explanation = explainer.explain_image(blank, target=0, preprocess={**PREPROCESS, "resize": resize})
    return tuple(int(v) for v in explanation.seen[0])


def used(size: tuple[int, int], resize: str) -> tuple[float, float]:
    """How many model pixels the seen part of the photo fills."""
    if resize != "letterbox":
        return SIDE, SIDE + CELL
    factor = min(SIDE / size[0], (SIDE + CELL) / size[1])
    return size[0] * factor, size[1] * factor


def test_outside_of_what_was_seen_the_map_is_zero(explainer: Any) -> None:
    bright = np.full((100, 300, 3), 255, np.uint8)
    explanation = explainer.explain_image(bright, target=0, preprocess={**PREPROCESS, "resize": "crop"})
    x1, y1, x2, y2 = explanation.seen[0]
    assert (y1, y2) == (0, 100)
    assert 85 <= x1 <= 95
    assert 205 <= x2 <= 215
    assert explanation.heatmap[0][:, :x1].max() == 0
    assert explanation.heatmap[0][:, x2:].max() == 0
    np.testing.assert_allclose(explanation.heatmap[0][:, x1:x2], 1, atol=1e-6)


def test_the_values_of_the_cam(explainer: Any) -> None:
    """Score of class 0 = mean of the cells, so α = 1 / cells and the cam is the brightness divided by their number."""
    image = np.zeros((SIDE, SIDE + CELL, 3), np.uint8)
    image[CELL : 2 * CELL, 2 * CELL : 3 * CELL] = 255
    explanation = explainer.explain_image(image, target=0, preprocess={**PREPROCESS, "resize": "stretch"})
    expected = np.zeros((6, 7), np.float32)
    expected[1, 2] = 1 / 42
    np.testing.assert_allclose(explanation.cam[0], expected, atol=1e-7)
    np.testing.assert_allclose(explanation.score, [1 / 42], rtol=1e-5)
    assert explanation.class_index.tolist() == [0]


def test_what_speaks_against_the_class_is_blank_and_said(explainer: Any) -> None:
    image = np.full((SIDE, SIDE, 3), 255, np.uint8)
    explanation = explainer.explain_image(image, target=1, preprocess={**PREPROCESS, "resize": "stretch"})
    assert explanation.is_blank.tolist() == [True]
    assert explanation.heatmap.max() == 0
    assert any("blank" in warning for warning in explanation.warnings)
    opposite = explainer.explain_image(
        image, target=1, preprocess={**PREPROCESS, "resize": "stretch"}, counterfactual=True
    )
    np.testing.assert_allclose(opposite.cam, 1 / 42, rtol=1e-5)


def test_evidence_in_the_padding_is_said(explainer: Any) -> None:
    """White bars beside a black photo, then a white photo between black bars."""
    black, white = np.zeros((200, 100, 3), np.uint8), np.full((200, 100, 3), 255, np.uint8)
    for image, pad, said in [(black, 255, True), (white, 0, False)]:
        form = {**PREPROCESS, "resize": "letterbox", "pad": pad}
        found = explainer.explain_image(image, target=0, preprocess=form)
        assert any("padding" in warning for warning in found.warnings) == said


def test_a_peak_of_one_pixel_is_not_taken_for_evidence_in_the_padding(explainer: Any) -> None:
    """Drawn at the smaller size of the photo, a peak loses height, and yet it is the largest value of the map."""
    image = np.zeros((47, 55, 3), np.uint8)
    image[20, 30] = 255
    form = {**PREPROCESS, "resize": "letterbox"}
    found = explainer.explain_image(image, target=0, preprocess=form, method="input-x-gradient")
    assert found.heatmap.max() == 1
    assert not any("padding" in warning for warning in found.warnings)
