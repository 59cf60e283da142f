"""``--target`` as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnx_gradcam as ogc
from onnx_gradcam.errors import TargetError
from onnx_gradcam.targets import help_text, parse
from onnx_gradcam.targets.text import READERS

LABELS = ["tabby, tabby cat", "tiger, big cat", "box: wooden", "diff", "12", "at@home"]
X, Y, BOX = 320.0, 200.5, (10.0, 20.0, 110.5, 90.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prob:tabby", ogc.Probability(0)),
        ("prob:label:12", ogc.Probability(4)),
        ("prob:top1", ogc.Probability(None)),
        ("logprob:1", ogc.LogProbability(1)),
        ("diff:0,1", ogc.Difference(0, 1)),
        ("diff:tabby,tiger", ogc.Difference(0, 1)),
        ("diff:tabby, tabby cat,tiger, big cat", ogc.Difference(0, 1)),
        ("diff:top1,tiger", ogc.Difference(None, 1)),
        ("diff:diff,box: wooden", ogc.Difference(3, 2)),
        ("finer:tiger", ogc.Finer(1)),
        ("finer:tabby, tabby cat", ogc.Finer(0)),
        ("finer:tabby,tiger,diff", ogc.Finer(0, against=(1, 3))),
        ("finer:tabby, tabby cat,tiger, big cat", ogc.Finer(0, against=(1,))),
        ("finer:top1,3", ogc.Finer(None, against=(3,))),
        ("finer:" + ",".join("01235" * 8), ogc.Finer(0, against=(1, 2, 3, 5, *(0, 1, 2, 3, 5) * 7))),
        ("cell:7", ogc.Box(7)),
        ("cell:tabby@7", ogc.Box(7, label=0)),
        ("point:320,200.5", ogc.Box(point=(X, Y))),
        ("point:tabby@320,200.5", ogc.Box(point=(X, Y), label=0)),
        ("point:at@home@320,200.5", ogc.Box(point=(X, Y), label=5)),
        ("objectness:7", ogc.Box(7, what="objectness")),
        ("objectness:320,200.5", ogc.Box(point=(X, Y), what="objectness")),
        ("iou:10,20,110.5,90", ogc.Box(what="iou", box=BOX)),
        ("iou:7@10,20,110.5,90", ogc.Box(7, what="iou", box=BOX)),
        ("iou:320,200.5@10,20,110.5,90", ogc.Box(point=(X, Y), what="iou", box=BOX)),
        ("tokens:3,1,label:12", ogc.Tokens([3, 1, 4])),
        ("tokens:3@5,1@9", ogc.Tokens([3, 1], [5, 9])),
        ("output:2", ogc.Output(2)),
        ("-output:0", ogc.Output(0, -1)),
        ("label:box: wooden", 2),
        ("diff", 3),
        ("label:diff", 3),
        ("tabby", 0),
        ("label:12", 4),
    ],
)
def test_one(text: str, expected: Any) -> None:
    assert parse([text], 6, LABELS) == expected


@pytest.mark.parametrize(
    ("text", "index", "mask", "box"),
    [
        ("mask:tiger@a/mask.png", 1, "a/mask.png", None),
        ("mask:at@home@m.npy", 5, "m.npy", None),
        ("mask:m.npy", None, "m.npy", None),
        ("box:tiger@10,20,110.5,90", 1, None, BOX),
        ("box:10,20,110.5,90", None, None, BOX),
        ("argmax:1", 1, None, None),
    ],
)
def test_regions(text: str, index: int | None, mask: str | None, box: Any) -> None:
    found = parse([text], 6, LABELS)
    assert isinstance(found, ogc.Region)
    assert (found.label, found.mask, found.box) == (index, mask, box)


def test_an_embedding() -> None:
    found = parse(["similar:emb.npy"], 6, LABELS)
    assert isinstance(found, ogc.Similar)
    assert found.embedding == "emb.npy"


def test_several() -> None:
    assert parse(["prob:0", "tiger"], 6, LABELS) == ogc.Each([ogc.Probability(0), 1])
    assert parse(["0", "tiger"], 6, LABELS) == ogc.Classes([0, 1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prob:dog", "no label 'dog'"),
        ("prob:9", "class 9 is out of range"),
        ("diff:0", "does not name two classes"),
        ("diff:0,dog", "no label 'dog'"),
        ("diff:0,1,2", "does not name two classes"),
        ("box:0@1,2,3", "'1,2,3' is not 4 numbers"),
        ("box:0@a,2,3,4", "is not 4 numbers"),
        ("point:0@1", "'1' is not 2 numbers"),
        ("objectness:1,2,3", "is not 2 numbers"),
        ("iou:1,2,3", "is not 4 numbers"),
        ("cell:x", "'x' is no number"),
        ("output:-1", "'-1' is no number"),
        ("tokens:3@5,1", "steps that are no numbers"),
        ("tokens:99", "class 99 is out of range"),
        ("probability:0", "no label 'probability:0'"),
    ],
)
def test_what_is_none(text: str, words: str) -> None:
    with pytest.raises(TargetError) as error:
        parse([text], 6, LABELS)
    assert words in error.value.what
    assert error.value.hint


@pytest.mark.parametrize("name", READERS)
def test_help_has_an_example_of_each_that_can_be_read(name: str) -> None:
    labels = ["tabby", "tiger cat", "car", "dog"]
    example = READERS[name].example
    assert example in help_text()
    assert example.startswith(f"{name}:")
    assert parse([example], 2000, labels) is not None


@pytest.mark.slow
def test_on_the_command_line(tmp_path: Path, models: Path) -> None:
    """Written, named in files and manifest, and repeated from it."""
    import json
    import subprocess
    import sys

    photo = sorted((models / "images").iterdir())[0]
    command = [sys.executable, "-m", "onnx_gradcam", "explain"]
    asked = ["--target", "prob:0", "--target", "diff:0,1", "--target=-output:1", "--target", "0"]
    model = str(next(models.glob("shapes-resnet*.onnx")))
    run = subprocess.run(
        [*command, model, str(photo), *asked, "-o", str(tmp_path / "out")], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    rows = manifest["results"][0]["rows"]
    assert [row["target"] for row in rows] == ["prob:0", "diff:0,1", "-output:1", "0"]
    assert [row["class_index"] for row in rows] == [0, 0, -1, 0]
    assert [Path(row["npy"]).name.split(".")[-2] for row in rows] == ["prob-0", "diff-0-1", "minus-output-1", "0"]
    assert rows[0]["score"] == pytest.approx(rows[3]["probability"], rel=1e-4)
    assert rows[0]["label"].startswith("P(")
    again = subprocess.run(
        [*command, "--from", str(tmp_path / "out" / "manifest.json")], capture_output=True, text=True
    )
    assert again.returncode == 0, again.stdout + again.stderr
    refused = subprocess.run(
        [*command, model, str(photo), "--target", "point:0@3,4", "-o", str(tmp_path / "none")],
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert "what fits this model: CLASS" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_parsed_embeddings_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.ones(6))
    found = parse([f"similar:{tmp_path / 'e.npy'}"], 6, None)
    assert isinstance(found, ogc.Similar)
