from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
import pytest

from tools.shapes import CLASSES, OUTLINES, draw_background, draw_scene, rasterise, single_object, two_objects

SIZES = [(96, 96), (60, 91), (121, 64)]


def black(size: tuple[int, int]) -> np.ndarray:
    return np.zeros((*size, 3), np.uint8)


@cache
def two_object_scenes() -> list:
    return [two_objects(np.random.default_rng(seed), SIZES[seed % 3]) for seed in range(150)]


def test_there_are_at_least_eight_classes() -> None:
    assert len(CLASSES) >= 8
    assert tuple(OUTLINES) == CLASSES


@pytest.mark.parametrize("label", range(len(CLASSES)), ids=CLASSES)
def test_outline_fits_the_unit_circle_and_touches_it(label: int) -> None:
    radius = np.linalg.norm(OUTLINES[CLASSES[label]], axis=1).max()
    assert radius == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("label", range(len(CLASSES)), ids=CLASSES)
def test_mask_is_the_outline_at_pixel_centres(label: int) -> None:
    centre, radius, angle = np.array([17.3, 22.8]), 13.0, 0.7
    mask = rasterise(label, (40, 36), (17.3, 22.8), radius, angle)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    outline = (OUTLINES[CLASSES[label]] @ turn.T * radius + centre).astype(np.float32)
    checked = 0
    for y, x in np.ndindex(40, 36):
        distance = cv2.pointPolygonTest(outline, (x + 0.5, y + 0.5), True)
        if abs(distance) > 1e-3:  # rounding decides nearer to the outline
            assert mask[y, x] == (distance > 0)
            checked += 1
    assert checked > 0.99 * mask.size
    assert mask.sum() > 80


@pytest.mark.parametrize("label", range(len(CLASSES)), ids=CLASSES)
def test_mask_area_is_the_outlines_area(label: int) -> None:
    x, y = OUTLINES[CLASSES[label]].T
    area = abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2 * 30.0**2
    mask = rasterise(label, (80, 80), (40.2, 39.1), 30.0, 1.1)
    assert mask.sum() == pytest.approx(area, rel=0.01)


@pytest.mark.parametrize("size", SIZES)
def test_masks_match_pixels(size: tuple[int, int]) -> None:
    for seed in range(20):
        scene = draw_scene(np.random.default_rng(seed), [seed % 8, (seed + 3) % 8], size, background=black(size))
        np.testing.assert_array_equal(scene.image.any(axis=2), scene.masks.any(axis=0))


def test_objects_change_no_other_pixel_of_the_background() -> None:
    background = draw_background(np.random.default_rng(5), (70, 90))
    before = background.copy()
    scene = draw_scene(np.random.default_rng(6), [0, 4], (70, 90), background=background)
    outside = ~scene.masks.any(axis=0)
    np.testing.assert_array_equal(scene.image[outside], background[outside])
    np.testing.assert_array_equal(background, before)


def test_objects_stand_out_from_what_is_behind_them() -> None:
    for seed in range(40):
        size = SIZES[seed % 3]
        background = draw_background(np.random.default_rng(seed), size)
        scene = draw_scene(np.random.default_rng(seed + 99), [seed % 8], size, background=background)
        mask = scene.masks[0]
        behind, shown = (image[mask].mean(axis=0, dtype=float) for image in (background, scene.image))
        # 110 for either colour of the texture; a blend lies nearer by their half distance, 30 √3.
        assert np.linalg.norm(behind - shown) >= math.sqrt(110**2 - (30 * math.sqrt(3)) ** 2) - 1


def test_two_objects_are_of_different_classes() -> None:
    labels = [scene.labels for scene in two_object_scenes()]
    assert all(len(pair) == 2 and pair[0] != pair[1] for pair in labels)
    assert {label for pair in labels for label in pair} == set(range(len(CLASSES)))


def test_two_objects_do_not_overlap_or_touch() -> None:
    for scene in two_object_scenes():
        first, second = scene.masks
        grown = np.zeros((first.shape[0] + 2, first.shape[1] + 2), bool)
        for dy in range(3):
            for dx in range(3):
                grown[dy : dy + first.shape[0], dx : dx + first.shape[1]] |= first
        assert not (grown[1:-1, 1:-1] & second).any()


def test_each_of_two_objects_covers_at_most_15_percent() -> None:
    share = np.array([scene.masks.mean(axis=(1, 2)) for scene in two_object_scenes()])
    assert share.max() <= 0.15
    assert share.min() >= 0.015


def test_the_centre_of_two_object_scenes_is_free() -> None:
    for scene in two_object_scenes():
        height, width = scene.masks.shape[1:]
        for y in {(height - 1) // 2, height // 2}:
            for x in {(width - 1) // 2, width // 2}:
                assert not scene.masks[:, y, x].any()


def test_without_the_request_the_centre_is_covered_now_and_then() -> None:
    scenes = [draw_scene(np.random.default_rng(seed), [0, 1]) for seed in range(60)]
    assert any(scene.masks[:, 48, 48].any() for scene in scenes)


def test_objects_lie_wholly_inside() -> None:
    for seed in range(60):
        for mask in single_object(np.random.default_rng(seed), SIZES[seed % 3]).masks:
            rows, columns = np.nonzero(mask)
            diameter = math.hypot(np.ptp(rows) + 1, np.ptp(columns) + 1)
            assert diameter >= 0.12 * math.sqrt(mask.size)  # a shape cut by the border could be smaller
            assert 0 < mask.sum() < mask.size / 2


def test_same_seed_same_pixels_and_other_seed_other_pixels() -> None:
    first, again, other = (two_objects(np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert first.labels == again.labels
    assert (first.image != other.image).mean() > 0.5


def test_colour_does_not_tell_the_class() -> None:
    """The mean colour over many objects is the same for every class within its standard error."""
    colours: dict[int, list[np.ndarray]] = {label: [] for label in range(len(CLASSES))}
    for seed in range(640):
        rng = np.random.default_rng(seed)
        scene = draw_scene(rng, [seed % 8], (32, 32), (0.2, 0.2))
        colours[seed % 8].append(scene.image[scene.masks[0]].mean(axis=0))
    means = np.array([np.mean(c, axis=0) for c in colours.values()])
    error = np.array([np.std(c, axis=0) for c in colours.values()]) / math.sqrt(80)
    assert (np.abs(means - means.mean(axis=0)) < 4 * error).all()


def test_an_empty_scene_is_its_background() -> None:
    scene = draw_scene(np.random.default_rng(3), [], (48, 64))
    np.testing.assert_array_equal(scene.image, draw_background(np.random.default_rng(3), (48, 64)))
    assert scene.masks.shape == (0, 48, 64)
    assert scene.labels == ()


def test_no_room_is_an_error_that_names_the_object() -> None:
    with pytest.raises(ValueError, match="no room for a heart of radius"):
        draw_scene(np.random.default_rng(0), [CLASSES.index("heart")], (8, 200))
