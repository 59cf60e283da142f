"""Questions and sentences about drawn scenes are true of them."""

from __future__ import annotations

import numpy as np
import pytest
from shapes import CLASSES
from task_scenes import (
    ANSWERS,
    CAPTION_WORDS,
    COLOURS,
    NAMES,
    QUESTION_LENGTH,
    QUESTION_WORDS,
    QUESTIONS,
    NamedScene,
    Thing,
    about_objects,
    class_map,
    describe,
    draw_named,
)

SCENES = [draw_named(np.random.default_rng([1, k]), 1 + k % 3) for k in range(30)]
LEFT, RIGHT = Thing(3, 0, (0.2, 0.5)), Thing(5, 4, (0.8, 0.4))  # a red star, a blue heart


def of_words(scene: NamedScene, words: set[str]) -> list[int]:
    """The objects that have all of the colours and outlines among the words."""
    named = words & {*NAMES, *CLASSES}
    return [k for k, thing in enumerate(scene.things) if named <= set(thing.words)]


@pytest.mark.parametrize("kind", QUESTIONS)
def test_answers_are_true(kind: str) -> None:
    rng = np.random.default_rng(0)
    for scene in SCENES * 4:
        asked = QUESTIONS[kind](rng, scene.things)
        assert set(asked.words) <= set(QUESTION_WORDS)
        assert len(asked.words) <= QUESTION_LENGTH
        assert asked.answer in ANSWERS
        named = of_words(scene, set(asked.words))
        if asked.words[0] == "is":
            assert asked.answer == ("yes" if named else "no")
            assert list(asked.about) == named
            continue
        (about,) = asked.about
        assert asked.answer in scene.things[about].words
        if asked.words[1] in ("colour", "shape"):
            assert named == [about]
            continue
        x, y = np.subtract(scene.things[about].centre, scene.things[named[0]].centre)
        where = {"left": -x, "right": x, "above": -y, "below": y}[asked.words[2]]
        assert where == pytest.approx(max(abs(x), abs(y)))
        assert where >= 0.1


def test_a_question_of_each_kind_is_about_an_object() -> None:
    for k, scene in enumerate(SCENES):
        assert all(asked.about for asked in about_objects(np.random.default_rng(k), scene.things).values())


def test_sentences() -> None:
    assert " ".join(describe([LEFT, RIGHT]).words) == "a red star left of a blue heart"
    assert describe([RIGHT, LEFT]).words == describe([LEFT, RIGHT]).words
    assert describe([RIGHT, LEFT]).about == (None, 1, 1, None, None, None, 0, 0)
    above = Thing(7, 1, (0.25, 0.1))
    assert " ".join(describe([LEFT, above]).words) == "an orange arrow above a red star"
    assert describe([LEFT]).words == ("a", "red", "star")
    assert all(set(describe(scene.things).words) <= set(CAPTION_WORDS) for scene in SCENES if len(scene.things) < 3)


def test_a_scene_has_the_colours_and_masks_that_it_names() -> None:
    for scene in SCENES:
        assert (
            len({thing.outline for thing in scene.things}) == len({t.colour for t in scene.things}) == len(scene.things)
        )
        assert scene.masks.sum(axis=0).max() == 1
        labels = class_map(scene)
        for thing, mask in zip(scene.things, scene.masks, strict=True):
            assert set(labels[mask]) == {1 + thing.outline}
            mean = scene.image[mask].mean(axis=0)
            brightness = mean.max() / max(COLOURS[NAMES[thing.colour]])
            assert np.abs(mean - brightness * np.array(COLOURS[NAMES[thing.colour]])).max() < 25


def test_equal_seeds_draw_equal_scenes() -> None:
    first, second = (draw_named(np.random.default_rng(7), 3) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    assert first.things == second.things
