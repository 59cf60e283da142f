"""Two recordings of results: what is the same, what may differ, and what is a difference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import same_cases
from same_recording import compare, load, save

HEATMAP = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 3, 4)
FIELDS: dict[str, Any] = {
    "heatmap": HEATMAP,
    "score": np.array([7.25, np.nan], np.float32),
    "is_blank": np.array([False, True]),
    "output y": np.array("{'a': 1}"),
    "fact.label": ["cross", "star"],
    "text.title": ["gradcam of cross"],
}
Compared = Callable[..., tuple[bool, list[str]]]


@pytest.fixture
def compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Compared:
    """Record ``FIELDS`` and a changed copy, and return the verdict and the lines that ``compare`` prints."""

    def record_and_compare(case: str = "net/gradcam", drawn: float = 0.02, **changed: Any) -> tuple[bool, list[str]]:
        save(tmp_path / "a" / case, FIELDS)
        save(tmp_path / "b" / case, {**FIELDS, **changed})
        verdict = compare(tmp_path / "a", tmp_path / "b", drawn)
        return verdict, capsys.readouterr().out.splitlines()

    return record_and_compare


def test_a_case_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    save(tmp_path / "net" / "gradcam", FIELDS)
    loaded = load(tmp_path / "net" / "gradcam")
    assert loaded.keys() == FIELDS.keys()
    for name, value in FIELDS.items():
        np.testing.assert_array_equal(loaded[name], value, strict=isinstance(value, np.ndarray))
    assert load(tmp_path / "net" / "other") == {}


def test_equal_recordings(compared: Compared) -> None:
    verdict, lines = compared()
    assert verdict
    assert lines == [
        "0 texts differ",
        "0 heatmaps of photos differ by less than 0.02, at most 0",
        "1 cases, 6 fields identical, 0 differ",
    ]


def test_one_unit_in_the_last_place_is_a_difference(compared: Compared) -> None:
    verdict, lines = compared(score=np.array([np.nextafter(np.float32(7.25), np.float32(8)), np.nan], np.float32))
    assert not verdict
    assert lines[-2].startswith("net/gradcam score: differs by at most")
    assert lines[-1] == "1 cases, 5 fields identical, 1 differ"


def test_the_distance_is_the_largest(compared: Compared) -> None:
    changed = HEATMAP.copy()
    changed[0, 1, 2] += 0.25
    changed[0, 2, 3] -= 0.5
    assert compared(heatmap=changed)[1][-2] == "net/gradcam heatmap: differs by at most 0.5"


@pytest.mark.parametrize(
    ("before", "after"), [(0.0, -0.0), (np.inf, -np.inf), (1.0, np.nan)], ids=["sign of zero", "infinity", "nan"]
)
def test_every_bit_counts(compared: Compared, tmp_path: Path, before: float, after: float) -> None:
    save(tmp_path / "a" / "net" / "cam", {"cam": np.array([before])})
    save(tmp_path / "b" / "net" / "cam", {"cam": np.array([after])})
    verdict, lines = compared()
    assert not verdict
    assert lines[-1] == "2 cases, 6 fields identical, 1 differ"


def test_another_dtype_is_a_difference(compared: Compared) -> None:
    verdict, lines = compared(heatmap=HEATMAP.astype(np.float64))
    assert not verdict
    assert lines[-2].startswith("net/gradcam heatmap: float32 (1, 3, 4) array(")
    assert " became float64 (1, 3, 4) array(" in lines[-2]


def test_another_shape_is_a_difference(compared: Compared) -> None:
    verdict, lines = compared(heatmap=HEATMAP.reshape(1, 4, 3))
    assert not verdict
    assert " became float32 (1, 4, 3) array(" in lines[-2]


def test_another_fact_is_a_difference(compared: Compared) -> None:
    verdict, lines = compared(**{"fact.label": ["cross", "ring"]})
    assert not verdict
    assert lines[-2] == "net/gradcam fact.label: ['cross', 'star'] became ['cross', 'ring']"


def test_texts_may_differ(compared: Compared) -> None:
    verdict, lines = compared(**{"text.title": ["Grad-CAM of cross"]})
    assert verdict
    assert lines[:2] == ["net/gradcam text.title: ['gradcam of cross'] became ['Grad-CAM of cross']", "1 texts differ"]
    assert lines[-1] == "1 cases, 5 fields identical, 0 differ"


@pytest.mark.parametrize("only_in", ["a", "b"])
def test_a_missing_case_is_a_difference(compared: Compared, tmp_path: Path, only_in: str) -> None:
    save(tmp_path / only_in / "net" / "layercam", {"score": np.zeros(1), "fact.label": ["cross"]})
    verdict, lines = compared()
    assert not verdict
    assert [line.split(":")[0] for line in lines[2:4]] == ["net/layercam fact.label", "net/layercam score"]
    assert lines[-1] == "2 cases, 6 fields identical, 2 differ"


def test_folders_without_cases_are_not_the_same(tmp_path: Path) -> None:
    assert not compare(tmp_path, tmp_path, 0.02)


@pytest.mark.parametrize("case", ["net/photo/gradcam", "commands/demo"])
def test_heatmaps_of_photos_may_differ_by_less_than_the_limit(compared: Compared, case: str) -> None:
    verdict, lines = compared(case, heatmap=HEATMAP + np.float32(0.01))
    assert verdict
    assert lines[1:] == [
        f"{case} heatmap: differs by at most 0.01",
        "1 heatmaps of photos differ by less than 0.02, at most 0.01",
        "1 cases, 5 fields identical, 0 differ",
    ]
    assert not compared(case, heatmap=HEATMAP + np.float32(0.03))[0]
    assert not compared(case, drawn=0.005, heatmap=HEATMAP + np.float32(0.01))[0]
    assert not compared(case, heatmap=np.where(HEATMAP == 1, np.nan, HEATMAP))[0]


def test_a_limit_of_zero_lets_no_heatmap_differ(compared: Compared) -> None:
    assert not compared("net/photo/gradcam", drawn=0, heatmap=np.where(HEATMAP == 0, np.float32(-0.0), HEATMAP))[0]


def test_other_fields_of_photos_may_not_differ(compared: Compared) -> None:
    assert not compared("net/photo/gradcam", score=np.array([7.26, np.nan], np.float32))[0]


def test_without_the_zoo_the_demo_models_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONNX_GRADCAM_ZOO", raising=False)
    assert {model.path.parent for model in same_cases.models()} == {same_cases.DEMO}
    commands = same_cases.commands()
    assert {"verify", "resnet", "inspect-shapes-resnet"} <= commands.keys()
    assert not {"compare", "places"} & commands.keys()
    words = [word for lines in commands.values() for line in lines for word in line]
    assert not [word for word in words if "{" in word or "None" in word]
    assert len(commands["verify"]) == 1
