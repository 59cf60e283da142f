"""The questionnaire gives nothing away, and the answers of simulated raters come out as they were put in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from human_study import (
    DEGREES,
    METHODS,
    MODEL,
    OBJECT,
    PAIR,
    analyse,
    embedded,
    main,
    preference,
    questionnaire,
    wilson,
)


@pytest.fixture(scope="module")
def study() -> tuple[str, dict[str, Any]]:
    return questionnaire(scenes=2, seed=5)


def content(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="study">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def key_of(question: str, items: int, rng: np.random.Generator) -> dict[str, Any]:
    rights = rng.integers(2, size=items).tolist()
    names = {f"item{n}": {"question": question, "group": "m", "right": right} for n, right in enumerate(rights)}
    return {"study": "s", "items": names}


@pytest.mark.slow
def test_the_page_names_no_method_no_model_and_no_right_answer(study: tuple[str, dict[str, Any]]) -> None:
    page, key = study
    asked = content(page)
    words = json.dumps([{**item, "pictures": []} for item in asked["items"]]) + page.split('id="study"')[0]
    assert not [word for word in (*METHODS, *PAIR, "right", "accuracy") if word in words]
    assert {item["id"] for item in asked["items"]} == set(key["items"])
    assert all(set(item) == {"id", "question", "pictures", "names", "choices"} for item in asked["items"])


@pytest.mark.slow
def test_the_page_needs_nothing_from_elsewhere(study: tuple[str, dict[str, Any]]) -> None:
    page, _ = study
    assert not re.search(r"https?:|src=[\"'](?!data:)|<link|@import", page)
    assert all(
        picture.startswith("data:image/png;base64,") for i in content(page)["items"] for picture in i["pictures"]
    )


@pytest.mark.slow
def test_every_scene_is_asked_for_every_method_and_sides_are_drawn(study: tuple[str, dict[str, Any]]) -> None:
    _, key = study
    items = key["items"].values()
    assert sorted(i["group"] for i in items if i["question"] == OBJECT) == sorted(METHODS * 2)
    assert sorted(i["group"] for i in items if i["question"] == MODEL) == sorted(
        ["guided-backprop", "guided-gradcam"] * 2
    )
    assert {i["right"] for i in items} == {0, 1}


@pytest.mark.slow
def test_equal_seeds_give_the_same_page_and_others_another_order(study: tuple[str, dict[str, Any]]) -> None:
    page, key = study
    assert questionnaire(scenes=2, seed=5) == (page, key)
    assert questionnaire(scenes=2, seed=6)[1]["study"] != key["study"]


def test_names_cannot_end_the_script() -> None:
    assert "<" not in embedded({"label": "</script><script>alert(1)"})
    assert json.loads(embedded("</script>")) == "</script>"


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [  # Wilson's interval as R's binom::binom.wilson and Newcombe 1998, table I, give it
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("skill", [0.5, 0.61, 0.9])
def test_the_interval_covers_the_skill_of_simulated_raters(skill: float) -> None:
    rng = np.random.default_rng(0)
    key = key_of(OBJECT, 60, rng)
    covered = 0
    for _ in range(400):
        chosen = {
            name: item["right"] if rng.uniform() < skill else 1 - item["right"] for name, item in key["items"].items()
        }
        (share,) = analyse(key, [{"rater": "a", "answers": chosen}])
        covered += share.low <= skill <= share.high
    assert 0.92 <= covered / 400 <= 0.98


def test_who_always_prefers_the_better_model_is_always_right() -> None:
    rng = np.random.default_rng(1)
    key = key_of(MODEL, 30, rng)
    clearly = {name: 4 if item["right"] else 0 for name, item in key["items"].items()}
    slightly_wrong = {name: 1 if item["right"] else 3 for name, item in key["items"].items()}
    undecided = dict.fromkeys(key["items"], 2)
    raters = [{"rater": r, "answers": a} for r, a in zip("abc", (clearly, slightly_wrong, undecided), strict=True)]
    (share,) = analyse(key, raters)
    assert (share.right, share.n, share.raters) == (30, 60, 3)
    assert share.score == pytest.approx((2 - 1 + 0) / 3)


def test_degrees_are_turned_to_the_side_of_the_better_model() -> None:
    assert [preference(choice, 0) for choice in range(len(DEGREES))] == [2, 1, 0, -1, -2]
    assert [preference(choice, 1) for choice in range(len(DEGREES))] == [-2, -1, 0, 1, 2]


def write(folder: Path, name: str, content: object) -> str:
    path = folder / name
    path.write_text(json.dumps(content))
    return str(path)


def test_answers_are_counted_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = write(
        tmp_path, "key.json", {"study": "s", "items": {"x": {"question": OBJECT, "group": "gradcam", "right": 1}}}
    )
    files = [
        write(tmp_path, f"{rater}.json", {"study": "s", "rater": rater, "answers": {"x": choice}})
        for rater, choice in (("a", 1), ("b", 1), ("c", 0))
    ]
    assert main(["analyse", key, *files, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["right"], row["n"], row["raters"]) == (2, 3, 3)
    assert row["value"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([{"study": "other", "rater": "a", "answers": {}}], "answers study 'other'"),
        ([{"study": "s", "rater": "a", "answers": {"y": 0}}], "does not offer"),
        ([{"study": "s", "rater": "a", "answers": {"x": 2}}], "does not offer"),
        ([{"study": "s", "rater": "a", "answers": {"x": 0}}] * 2, "two files of answers come from a"),
        (["no answers"], "holds no answers"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: list[object], message: str
) -> None:
    key = write(
        tmp_path, "key.json", {"study": "s", "items": {"x": {"question": OBJECT, "group": "gradcam", "right": 1}}}
    )
    files = [write(tmp_path, f"{number}.json", each) for number, each in enumerate(answers)]
    assert main(["analyse", key, *files]) == 2
    assert message in capsys.readouterr().err
