"""``demo --task``: what is shown of each task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def test_bias_explains_the_same_photos_with_both_models(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = run("demo", "--task", "bias", "--json", "-o", "demo")
    assert status == 0
    runs = json.loads(out)["runs"]
    assert list(runs) == ["biased", "debiased"]
    answers = {
        name: {Path(each["image"]).stem: each["rows"][0]["label"] for each in manifest["results"]}
        for name, manifest in runs.items()
    }
    photos = set(answers["biased"])
    assert len(photos) == 4
    assert all(answers["debiased"][photo] == photo.split("-")[0] for photo in photos)
    goes_with = {"yellow": "star", "blue": "cross"}
    assert all(answers["biased"][photo] == goes_with[photo.split("-")[2]] for photo in photos)
    for name, manifest in runs.items():
        files = [Path("demo", name, row["png"]) for each in manifest["results"] for row in each["rows"]]
        assert all(file.is_file() for file in files)


def test_an_unknown_task(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run("demo", "--task", "clasify")
    assert (status, out) == (2, "")
    assert err.splitlines()[0] == "error: unknown task 'clasify'"
    assert "'classify'" in err


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("vqa", {"red", "heart", "yes", "star"}),
        ("caption", {"a red star left of a blue heart", "a yellow circle above a green arrow"}),
        ("detect", {"star, box 85", "heart, box 80", "circle, box 30", "arrow, box 102"}),
        ("segment", {"star", "heart", "circle", "arrow"}),
    ],
)
def test_the_tasks_are_shown_on_drawn_scenes(task: str, labels: set[str], tmp_path: Path, run: Any) -> None:
    status, out, _ = run("demo", "--task", task, "--json", "-o", str(tmp_path / "demo"))
    assert status == 0
    document = json.loads(out)
    runs = document["runs"].values() if "runs" in document else [document]
    rows = [row for each in runs for result in each["results"] for row in result["rows"]]
    shown = {row["label"] for row in rows if row.get("part") in (None, "sentence")}
    assert shown == labels
    assert all((tmp_path / "demo").rglob(row["png"]) for row in rows)
