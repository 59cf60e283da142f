"""``evaluate``: a table, JSON, pictures, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from repository import DOCS

OUT = Path("onnx-gradcam-out/model-gradcam-evaluation")
EVALUATE = ("evaluate", "model.onnx", "photos.csv", "--preprocess", "good.json", "--provider", "cpu")


@pytest.fixture
def table(folder: Path) -> Path:
    """The bright square of each photo is its object; the class of both is 0."""
    lines = ["path,label,box", "photos/left.png,0,0 20 60 100", "photos/right.png,0,100 20 160 100"]
    (folder / "photos.csv").write_text("\n".join(lines), "utf-8")
    return folder


def test_a_table_and_a_picture_for_each_metric(table: Path, run: Any) -> None:
    status, out, err = run(*EVALUATE, "--metrics", "pointing,energy", "--metrics", "deletion")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["pointing", "energy", "deletion"]
    assert lines[1].split() == ["map", "95", "%", "n", "chance", "random", "ceiling", "better"]
    pointing = lines[2].split()
    assert pointing[:4] == ["pointing", "1.000", "[1.000,", "1.000]"]
    assert pointing[4] == "2"
    assert float(pointing[5]) == pytest.approx(60 * 80 / (120 * 160), abs=0.01)
    assert lines[-1] == f"written {OUT / 'evaluation.json'}"
    assert {file.name for file in OUT.iterdir()} == {"pointing.png", "energy.png", "deletion.png", "evaluation.json"}


def test_json_is_the_document_and_nothing_else(table: Path, run: Any) -> None:
    status, out, _ = run(*EVALUATE, "--metrics", "energy", "--json", "-o", "out")
    assert status == 0
    content = json.loads(out)
    jsonschema.validate(content, json.loads((DOCS / "evaluation.schema.json").read_text("utf-8")))
    assert content == json.loads(Path("out/evaluation.json").read_text("utf-8"))
    assert [row["image"] for row in content["rows"]] == ["photos/left.png", "photos/right.png"]


def test_a_photo_that_fails_is_named_and_the_others_are_measured(table: Path, run: Any) -> None:
    (table / "photos" / "left.png").write_bytes(b"no photo")
    status, out, err = run(*EVALUATE, "--metrics", "energy", "--json")
    assert status == 2
    content = json.loads(out)
    assert [len(content[key]) for key in ("rows", "errors")] == [1, 1]
    assert "error: photos/left.png" in err


def test_an_earlier_evaluation_is_not_replaced(table: Path, run: Any) -> None:
    assert run(*EVALUATE, "--metrics", "energy")[0] == 0
    status, _, err = run(*EVALUATE, "--metrics", "pointing")
    assert status == 2
    assert "already holds an evaluation" in err
    assert run(*EVALUATE, "--metrics", "pointing", "--overwrite")[0] == 0
    assert {file.name for file in OUT.iterdir()} == {"pointing.png", "evaluation.json"}


def test_a_mistake_in_the_request_leaves_no_folder(table: Path, run: Any) -> None:
    status, _, err = run(*EVALUATE, "--metrics", "energie")
    assert status == 2
    assert "unknown metric 'energie'" in err
    assert run(*EVALUATE, "--layer", "nowhere")[0] == 2
    assert not OUT.parent.exists()
