"""The three slices of a volume: where the parts of a body lie in them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnx_gradcam.results.picture.figure import Scale
from onnx_gradcam.results.picture.slices import LONG_SIDE, slice_panels, slices
from onnx_gradcam.results.picture.style import PLAIN

SIZE = {"R": 5, "L": 5, "A": 6, "P": 6, "S": 7, "I": 7}
PLACE = {"R": 4, "L": 0, "A": 5, "P": 0, "S": 1, "I": 5}
"""A voxel at the right, in front, and low down: its index along an axis that grows to each side."""
CODES = [
    codes
    for order in itertools.permutations(("RL", "AP", "SI"))
    for codes in itertools.product(*order)
]  # fmt: skip


@pytest.mark.parametrize("codes", CODES, ids="".join)
def test_the_same_place_is_drawn_whatever_the_axes(codes: tuple[str, ...]) -> None:
    voxel = tuple(PLACE[code] for code in codes)
    volume = np.zeros([SIZE[code] for code in codes], np.uint8)
    volume[voxel] = 255
    axial, coronal, sagittal = slices(volume, volume / 255, voxel, codes)
    assert axial.grey.shape == (6, 5)
    assert axial.grey[0, 0] == 255  # in front is at the top, and the right side of the body at the left
    assert coronal.grey.shape == (7, 5)
    assert coronal.grey[5, 0] == 255  # the feet are at the bottom
    assert sagittal.grey.shape == (7, 6)
    assert sagittal.grey[5, 0] == 255  # in front is at the left
    for each in (axial, coronal, sagittal):
        np.testing.assert_array_equal(each.level, each.grey / np.float32(255))
        assert each.grey.sum() == 255
    place = PLACE[codes[next(k for k, code in enumerate(codes) if code in "SI")]]
    assert axial.caption[0] == f"axial: index {place} of axis {next(k for k, c in enumerate(codes) if c in 'SI')}"


def test_a_volume_that_is_no_body_is_cut_along_its_axes() -> None:
    volume = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    first, second, third = slices(volume, volume / 23, (1, 0, 2))
    np.testing.assert_array_equal(first.grey, volume[1])
    np.testing.assert_array_equal(second.grey, volume[:, 0])
    np.testing.assert_array_equal(third.grey, volume[:, :, 2])
    assert [each.caption for each in (first, second, third)] == [
        ("index 1 of axis 0",), ("index 0 of axis 1",), ("index 2 of axis 2",),
    ]  # fmt: skip


def test_a_millimetre_has_one_size_in_all_slices() -> None:
    volume = np.zeros((10, 20, 5), np.uint8)
    cut = slices(volume, volume / 1.0, (0, 0, 0), ("R", "A", "S"), (1.0, 1.0, 4.0))
    axial, coronal, sagittal = (panel.picture for panel in slice_panels(cut, Scale(), False, PLAIN))
    assert axial.shape[:2] == (LONG_SIDE, LONG_SIDE // 2)  # 20 mm by 10 mm
    assert coronal.shape[:2] == (LONG_SIDE, LONG_SIDE // 2)  # 5 slices of 4 mm by 10 mm
    assert sagittal.shape[:2] == (LONG_SIDE, LONG_SIDE)
