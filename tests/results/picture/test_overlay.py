"""The colours of a map over its photo."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from onnx_gradcam.errors import InputError, OutputError
from onnx_gradcam.results.picture.overlay import HIDDEN_BRIGHTNESS, encode_png, overlay, scale_colours
from onnx_gradcam.results.picture.style import COLORMAPS, Style

Array = NDArray[Any]


def ramp(height: int, width: int) -> Array:
    return np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width)


def colour(level: float) -> Array:
    """Inferno by matplotlib's definition at its ends and its middle (RGB, 0 to 255)."""
    return np.array({0.0: [0, 0, 4], 0.5: [188, 55, 84], 1.0: [252, 255, 164]}[level])


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_overlay_is_the_formula(level: float) -> None:
    image = np.full((2, 3, 3), (200, 100, 50), np.uint8)
    grey = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    a = 0.6 * (1 + 3 * level) / 4
    mixed = overlay(image, np.full((2, 3), level, np.float32), style=Style("grey", alpha=0.6))
    assert mixed.dtype == np.uint8
    np.testing.assert_allclose(mixed[1, 2], (1 - a) * grey + a * colour(level), atol=1.1)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_over_a_photo_in_colour_weak_evidence_is_clear(level: float) -> None:
    image = np.full((2, 3, 3), (200, 100, 50), np.uint8)
    a = 0.6 * level * (2 - level)
    mixed = overlay(image, np.full((2, 3), level, np.float32), style=Style(alpha=0.6))
    np.testing.assert_allclose(mixed[1, 2], (1 - a) * image[0, 0] + a * colour(level), atol=1.1)


def test_the_photo_is_grey_under_two_colours() -> None:
    """An orange cat is no evidence: the photo keeps its colours only under a map with one scale of colours."""
    image = np.full((2, 3, 3), (213, 94, 0), np.uint8)
    level = np.zeros((2, 3), np.float32)
    assert np.ptp(overlay(image, level, signed=True), axis=2).max() == 0
    np.testing.assert_array_equal(overlay(image, level), image)
    np.testing.assert_array_equal(overlay(image, level, signed=True, style=Style(photo="colour")), image)


VIRIDIS, JET = {0.0: (68, 1, 84), 1.0: (253, 231, 37)}, {0.0: (0, 0, 128), 1.0: (128, 0, 0)}  # matplotlib's


@pytest.mark.parametrize(("name", "ends"), [("viridis", VIRIDIS), ("jet", JET)])
def test_other_colours(name: str, ends: dict[float, tuple[int, int, int]]) -> None:
    opaque = Style(colormap=name, alpha=1, photo="grey")
    mixed = overlay(np.zeros((1, 1, 3), np.uint8), np.ones((1, 1), np.float32), style=opaque)
    np.testing.assert_allclose(mixed[0, 0], ends[1.0], atol=1)
    np.testing.assert_allclose(scale_colours(2, colormap=name), [ends[0.0], ends[1.0]], atol=1)


@pytest.mark.parametrize("name", list(COLORMAPS)[:7])
def test_these_colours_grow_lighter_with_the_value(name: str) -> None:
    lightness = cv2.cvtColor(scale_colours(64, colormap=name)[None].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    assert (np.diff(lightness[0, :, 0]) > -0.5).all()
    assert lightness[0, -1, 0] > lightness[0, 0, 0] + 50


@pytest.mark.parametrize(
    ("keywords", "hint"),
    [({"colormap": "virdis"}, "'viridis'"), ({"photo": "sepia"}, "'colour', 'grey'"), ({"alpha": 1.5}, "from 0 to 1")],
)
def test_a_style_is_checked_when_it_is_made(keywords: dict[str, Any], hint: str) -> None:
    with pytest.raises(OutputError) as error:
        Style(**keywords)
    assert hint in error.value.hint


def test_both_spellings() -> None:
    assert Style(photo="gray") == Style(photo="grey")
    assert Style(photo="color") == Style(photo="colour")


def test_overlay_dims_what_was_not_seen() -> None:
    image = np.full((6, 8, 3), 200, np.uint8)
    heatmap = np.ones((6, 8), np.float32)
    mixed = overlay(image, heatmap, seen=(2, 1, 5, 4))
    hidden = np.ones((6, 8), bool)
    hidden[1:4, 2:5] = False
    np.testing.assert_array_equal(mixed[hidden], np.full((39, 3), round(HIDDEN_BRIGHTNESS * 200)))
    np.testing.assert_array_equal(mixed[~hidden], overlay(image, heatmap)[~hidden])
    assert mixed[~hidden].min() > 90


def test_more_evidence_is_lighter() -> None:
    """Whatever the colour vision, and in print: on black, lightness grows with the value."""
    mixed = overlay(np.zeros((1, 256, 3), np.uint8), ramp(1, 256))
    lightness = cv2.cvtColor(mixed.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[0, :, 0]
    assert (np.diff(lightness[::8]) > 0).all()


def test_overlay_refuses_another_size() -> None:
    with pytest.raises(InputError, match=r"\(3, 3\) does not fit an image of \(2, 3\)"):
        overlay(np.zeros((2, 3, 3), np.uint8), np.zeros((3, 3)))


VERMILION, BLUE = (213, 94, 0), (0, 114, 178)  # Okabe and Ito 2008


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (1.0, [213, 94, 0]),
        (0.5, [146, 87, 40]),  # (80 + 213) / 2, …
        (0.0, [80, 80, 80]),
        (-0.5, [40, 97, 129]),
        (-1.0, [0, 114, 178]),
        (-7.0, [0, 114, 178]),
    ],
)
def test_a_signed_map_is_vermilion_blue_and_at_zero_the_photo(level: float, expected: list[int]) -> None:
    image = np.full((2, 3, 3), 80, np.uint8)
    mixed = overlay(image, np.full((2, 3), level, np.float32), signed=True, style=Style(alpha=1))
    np.testing.assert_allclose(mixed[1, 2], expected, atol=1)


def test_a_signed_map_keeps_the_photo_visible() -> None:
    """At the default opacity: black and white apart everywhere, and untouched where there is no evidence."""
    image = np.zeros((2, 5, 3), np.uint8)
    image[1] = 255
    mixed = overlay(image, np.tile(np.linspace(-1, 1, 5, dtype=np.float32), (2, 1)), signed=True).astype(int)
    assert (mixed[1] - mixed[0]).min() >= 63
    np.testing.assert_array_equal(mixed[:, 2], image[:, 2])


@pytest.mark.parametrize("lost", ["none", "red", "green"])
def test_for_and_against_differ_whatever_the_colour_vision(lost: str) -> None:
    """Without one kind of cone: Viénot, Brettel and Mollon 1999, their matrices on linear RGB."""
    simulation = {
        "none": np.eye(3),
        "red": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "green": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    }[lost]
    colours = (np.array([VERMILION, BLUE]) / 255) ** 2.2
    seen = np.clip(colours @ np.array(simulation).T, 0, 1) ** (1 / 2.2)
    lab = cv2.cvtColor(seen[None].astype(np.float32), cv2.COLOR_RGB2Lab)[0]
    assert np.linalg.norm(lab[0] - lab[1]) > 40


def test_the_scale_of_a_signed_map_runs_from_blue_through_grey_to_vermilion() -> None:
    colours = scale_colours(101, signed=True)
    np.testing.assert_array_equal(colours[[0, 50, 100]], [BLUE, (128, 128, 128), VERMILION])
    assert (np.diff(colours.astype(int)[:, 0]) >= 0).all(), "red grows with the value"


def test_a_signed_overlay_dims_what_was_not_seen() -> None:
    mixed = overlay(np.full((4, 4, 3), 200, np.uint8), np.ones((4, 4)), seen=(0, 0, 4, 2), signed=True)
    np.testing.assert_array_equal(mixed[3, 3], [round(HIDDEN_BRIGHTNESS * 200)] * 3)


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7)])
def test_encode_png(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    with Image.open(io.BytesIO(encode_png(image))) as opened:
        assert opened.format == "PNG"
        np.testing.assert_array_equal(np.asarray(opened), image)
