from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from scenes import (
    CLASSES,
    COLOURS,
    OUTLINES,
    TEXTURES,
    Item,
    draw_background,
    draw_scene,
    item_of,
    one_object,
    paint,
    random_items,
    two_objects,
)
from scenes.textures import textured


def drawn(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_class_is_an_outline_with_a_texture_and_every_pair_is_one() -> None:
    pairs = {(item_of(k, "red").outline, item_of(k, "red").texture) for k in range(len(CLASSES))}
    assert pairs == set(itertools.product(OUTLINES, TEXTURES))
    assert len(CLASSES) >= 16
    assert [item_of(k, "red").label for k in range(len(CLASSES))] == list(range(len(CLASSES)))
    assert Item("circle", "striped", "red").name == CLASSES[0] == "striped circle"


def test_equal_seeds_give_equal_scenes() -> None:
    a, b, c = two_objects(drawn(5)), two_objects(drawn(5)), two_objects(drawn(6))
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.masks, b.masks)
    assert a.items == b.items
    assert not np.array_equal(a.image, c.image)


@pytest.mark.parametrize("size", [(128, 128), (96, 150)])
def test_objects_lie_apart_wholly_inside_and_are_all_that_is_painted(size: tuple[int, int]) -> None:
    for seed in range(40):
        rng = drawn(seed)
        canvas = draw_background(rng, size)
        items = random_items(rng, 1 + seed % 3)
        scene = paint(rng, canvas, items, (0.1, 0.16))
        assert scene.image.shape == (*size, 3)
        assert scene.items == tuple(items)
        assert len(set(scene.labels)) == len(items)
        assert scene.masks.sum(axis=0).max() == 1
        untouched = ~scene.masks.any(axis=0)
        assert np.array_equal(scene.image[untouched], canvas[untouched])
        for mask, box in zip(scene.masks, scene.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        for a, b in itertools.combinations(scene.masks, 2):
            nearby = cv2.dilate(a.view(np.uint8), np.ones((3, 3), np.uint8)).view(bool)
            assert not (nearby & b).any()


def test_an_empty_scene_has_no_object() -> None:
    scene = draw_scene(drawn(0), [])
    assert scene.masks.shape == (0, 128, 128)
    assert scene.boxes.shape == (0, 4)
    assert scene.labels == ()


def test_objects_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="no room for 4 objects"):
        draw_scene(drawn(0), random_items(drawn(0), 4), radius=(0.4, 0.45))


def test_textures_differ_in_what_they_repeat() -> None:
    """Half of stripes and checks is each shade; dots leave more of one; stripes do not change along themselves."""
    for seed in range(20):
        shares = {}
        for texture in TEXTURES:
            paper = textured(drawn(seed), texture, "blue", (90, 90), 9.0)
            colours, counts = np.unique(paper.reshape(-1, 3), axis=0, return_counts=True)
            assert len(colours) == 2
            shares[texture] = counts.min() / counts.sum()
        assert shares["striped"] == pytest.approx(0.5, abs=0.06)
        assert shares["checked"] == pytest.approx(0.5, abs=0.06)
        assert shares["dotted"] == pytest.approx(0.11 * np.pi, abs=0.04)


def test_colour_says_nothing_of_the_class() -> None:
    scenes = [one_object(drawn(seed)) for seed in range(400)]
    counts = np.zeros((len(TEXTURES), len(COLOURS)))
    for item in (scene.items[0] for scene in scenes):
        counts[TEXTURES.index(item.texture), COLOURS.index(item.colour)] += 1
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 25  # χ² with 10 degrees of freedom: beyond it 0.5 %
