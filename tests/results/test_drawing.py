"""From cams to heatmaps, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.errors import MethodError
from onnx_gradcam.results.frame import ALL, Drawing, at_one_scale

A, B = np.float32([[[1, 2], [0, -4]]]), np.float32([[[0, 1], [2, 0]]])


def test_a_map_by_itself() -> None:
    heatmap, scale = Drawing((2, 2)).heatmap([A])
    np.testing.assert_array_equal(heatmap, A / 4)
    assert scale.dtype == heatmap.dtype == np.float32
    np.testing.assert_array_equal(scale, [4])


def test_a_blank_map_has_scale_one() -> None:
    heatmap, scale = Drawing((2, 2)).heatmap([0 * A])
    np.testing.assert_array_equal(heatmap, 0 * A)
    assert scale.tolist() == [1]


def test_parts_share_the_scale_of_their_row() -> None:
    first, second = np.concatenate([A, B]), np.concatenate([B, 0 * B])
    drawing = Drawing((2, 2))
    (a, b), scale, (blank_a, blank_b) = at_one_scale([(drawing, [first]), (drawing, [second])])
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
    heatmap, scale = Drawing((2, 2), fusion).heatmap([A, B])
    np.testing.assert_allclose(heatmap[0], np.array(expected) / np.abs(expected).max(), rtol=1e-6)
    assert np.isnan(scale).all(), "in no units"


def test_signed_maps_are_not_multiplied() -> None:
    with pytest.raises(MethodError, match="product"):
        Drawing((2, 2), "product").heatmap([A, B])


def test_a_row_is_drawn_from_its_level_or_from_the_sum_of_all() -> None:
    cams = [np.repeat(A, 3, 0), np.repeat(B, 3, 0)]
    drawing = Drawing((2, 2), level=np.array([1, 0, ALL]))
    heatmap, scale = drawing.heatmap(cams)
    assert scale.tolist() == [2, 4, 4]
    np.testing.assert_array_equal(heatmap * scale[:, None, None], np.concatenate([B, A, A + B]))
    some, _ = drawing.rows(np.array([2, 0])).heatmap([cam[:2] for cam in cams])
    np.testing.assert_array_equal(some, heatmap[[2, 0]])


def test_each_part_is_drawn_from_its_own_level() -> None:
    of_a, of_b, of_both = (Drawing((2, 2), level=np.array([k])) for k in (0, 1, ALL))
    (a, b, both), scale, _ = at_one_scale([(drawing, [A, B]) for drawing in (of_a, of_b, of_both)])
    assert scale.tolist() == [4]
    np.testing.assert_array_equal(np.concatenate([a, b, both]) * 4, np.concatenate([A, B, A + B]))


def test_in_the_photos_pixels() -> None:
    """Turned by the geometry; the scale is that of the whole map, also where the photo has only a part of it."""
    heatmap, scale = Drawing((2, 2), to_photo=lambda h: h[:1].T).heatmap([A])
    np.testing.assert_array_equal(heatmap, np.float32([[[1], [2]]]) / 4)
    assert scale.tolist() == [4]
