"""From cams to heatmaps, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.errors import MethodError
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.results.drawing import draw, draw_together
from onnx_gradcam.results.frame import ALL_LEVELS, Frame

A, B = np.float32([[[1, 2], [0, -4]]]), np.float32([[[0, 1], [2, 0]]])


def test_a_map_by_itself() -> None:
    heatmap, scale, blank = draw(Frame((2, 2)), [A])
    assert not blank.any()
    np.testing.assert_array_equal(heatmap, A / 4)
    assert scale.dtype == heatmap.dtype == np.float32
    np.testing.assert_array_equal(scale, [4])


def test_a_blank_map_has_scale_one() -> None:
    heatmap, scale, blank = draw(Frame((2, 2)), [0 * A])
    assert blank.tolist() == [True]
    np.testing.assert_array_equal(heatmap, 0 * A)
    assert scale.tolist() == [1]


def test_parts_share_the_scale_of_their_row() -> None:
    first, second = np.concatenate([A, B]), np.concatenate([B, 0 * B])
    frame = Frame((2, 2))
    (a, b), scale, (blank_a, blank_b) = draw_together([(frame, [first]), (frame, [second])])
    assert scale.tolist() == [4, 2]
    np.testing.assert_array_equal(a, first / scale[:, None, None])
    np.testing.assert_array_equal(b, second / scale[:, None, None])
    assert (blank_a.tolist(), blank_b.tolist()) == ([False, False], [False, True])


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [("mean", [[1 / 8, 1 / 2], [1 / 2, -1 / 2]]), ("max", [[1 / 4, 1 / 2], [1, 0]])],
)
def test_layers_are_fused_each_by_its_largest(fusion: str, expected: list[list[float]]) -> None:
    """A / 4 = [[¼, ½], [0, −1]] and B / 2 = [[0, ½], [1, 0]]; then divided by the largest of the fused."""
    heatmap, scale, _ = draw(Frame((2, 2), fusion), [A, B])
    np.testing.assert_allclose(heatmap[0], np.array(expected) / np.abs(expected).max(), rtol=1e-6)
    assert np.isnan(scale).all(), "in no units"


def test_signed_maps_are_not_multiplied() -> None:
    with pytest.raises(MethodError, match="product"):
        draw(Frame((2, 2), "product"), [A, B])


def test_a_row_is_drawn_from_its_level_or_from_the_sum_of_all() -> None:
    cams = [np.repeat(A, 3, 0), np.repeat(B, 3, 0)]
    frame = Frame((2, 2), level=np.array([1, 0, ALL_LEVELS]))
    heatmap, scale, _ = draw(frame, cams)
    assert scale.tolist() == [2, 4, 4]
    np.testing.assert_array_equal(heatmap * scale[:, None, None], np.concatenate([B, A, A + B]))
    some, _, _ = draw(frame.rows(np.array([2, 0])), [cam[:2] for cam in cams])
    np.testing.assert_array_equal(some, heatmap[[2, 0]])


def test_each_part_is_drawn_from_its_own_level() -> None:
    of_a, of_b, of_both = (Frame((2, 2), level=np.array([k])) for k in (0, 1, ALL_LEVELS))
    (a, b, both), scale, _ = draw_together([(frame, [A, B]) for frame in (of_a, of_b, of_both)])
    assert scale.tolist() == [4]
    np.testing.assert_array_equal(np.concatenate([a, b, both]) * 4, np.concatenate([A, B, A + B]))


def half_pixel(cam: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The cam at the centre of each pixel of the photo, in float64: linear, edges repeated, 0 where it was not seen."""
    drawn = np.zeros(geometry.photo)
    x1, y1, x2, y2 = geometry.seen
    for row in range(y1, y2):
        for column in range(x1, x2):
            at = [
                np.clip(((p + 0.5) * s + o) * n / m - 0.5, 0, n - 1)
                for p, s, o, n, m in zip(
                    (row, column), geometry.scale, geometry.offset, cam.shape, geometry.model, strict=True
                )
            ]
            i, j = np.minimum(np.floor(at).astype(int), np.array(cam.shape) - 2)
            u, v = at[0] - i, at[1] - j
            corners = cam[i : i + 2, j : j + 2].astype(np.float64)
            drawn[row, column] = np.array([1 - u, u]) @ corners @ np.array([1 - v, v])
    return drawn


@pytest.mark.parametrize(
    ("photo", "scale", "offset"),
    [
        ((60, 90), (0.4, 0.4), (0.0, -6.0)),  # the sides are cropped
        ((60, 90), (0.4, 4 / 15), (0.0, 0.0)),  # stretched
        ((41, 67), (24 / 41, 24 / 67), (0.0, 0.0)),
    ],
)
def test_a_photo_gets_one_interpolation_and_its_own_peak(
    photo: tuple[int, int], scale: tuple[float, float], offset: tuple[float, float]
) -> None:
    geometry = Geometry(photo, (24, 24), scale, offset)
    cams = np.random.default_rng(0).random((2, 4, 4), np.float32)
    heatmap, units, _ = draw(Frame((24, 24), geometry=geometry), [cams])
    for row in range(2):
        expected = half_pixel(cams[row], geometry)
        np.testing.assert_allclose(units[row], expected.max(), rtol=1e-6)
        np.testing.assert_allclose(heatmap[row], expected / expected.max(), atol=1e-6)
        assert heatmap[row].max() == 1


def test_what_lies_in_the_padding_is_not_shown_and_not_made_up_for() -> None:
    """A photo of 2 × 4 in the middle of an input of 4 × 4: the largest value lies above it."""
    cam = np.float32([[[8, 0, 0, 0], [0, 0, 0, 0], [0, 0, 4, 0], [0, 0, 0, 0]]])
    geometry = Geometry((2, 4), (4, 4), (1.0, 1.0), (1.0, 0.0))
    heatmap, scale, blank = draw(Frame((4, 4), geometry=geometry), [cam])
    assert scale.tolist() == [8]
    np.testing.assert_array_equal(heatmap[0], [[0, 0, 0, 0], [0, 0, 0.5, 0]])
    assert blank.tolist() == [False]
    hidden, scale, blank = draw(Frame((4, 4), geometry=geometry), [cam * (cam > 4)])
    assert scale.tolist() == [8]
    assert not hidden.any()
    assert blank.tolist() == [False]
