"""The biased model looks at the cap, the other one at the sign: on few scenes, and on the page."""

from __future__ import annotations

import re

import bias_study
import numpy as np
import pytest
from bias_scenes import SIGNS


def test_scenes_and_their_twins() -> None:
    for scene, twin in bias_study.pairs(5, 6):
        assert (scene.sign, scene.cap) == (twin.sign, 1 - twin.cap)
        np.testing.assert_array_equal(scene.regions, twin.regions)
    caps = [scene.cap == scene.sign for scene, _ in bias_study.pairs(5, 100)]
    assert 0.35 < np.mean(caps) < 0.65


@pytest.mark.slow
def test_the_biased_model_puts_its_evidence_on_the_cap_and_the_other_one_on_the_sign() -> None:
    found = {name: bias_study.measure(path, 60) for name, path in bias_study.MODELS.items()}
    verdicts = bias_study.verdicts(found)
    assert verdicts == dict.fromkeys(verdicts, True)
    of_cap = {name: bias_study.share(figures, "cap")["share"] for name, figures in found.items()}
    assert of_cap["biased"]["value"] > 2 * bias_study.share(found["biased"], "cap")["area"]["value"]
    assert bias_study.share(found["debiased"], "sign")["share"]["low"] > of_cap["debiased"]["high"]
    assert found["debiased"]["accuracy"]["cap says nothing"]["value"] >= 0.95
    labels = {each["label"] for each in found["debiased"]["shares"]}
    assert labels == {None, *SIGNS}


@pytest.mark.slow
@pytest.mark.parametrize(("words", "column"), [("| cap says nothing |", 0), ("| cap |", 0), ("| cap |", 1)])
def test_the_page_says_what_a_few_scenes_say(words: str, column: int) -> None:
    cells = bias_study.PAGE.read_text("utf-8").split(words)[1].split("|")[column]
    on_page = float(re.findall(r"[\d.]+", cells)[0])
    figures = bias_study.measure(list(bias_study.MODELS.values())[column], 60)
    few = figures["accuracy"]["cap says nothing"] if "nothing" in words else bias_study.share(figures, "cap")["share"]
    assert few["value"] == pytest.approx(on_page, abs=0.15)
