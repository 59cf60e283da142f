"""``explain --question`` and ``--caption``: what is printed, written and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import onnx
import pytest
from repository import DOCS
from text_nets import answering, photo, telling

from onnx_gradcam.cli.bare import with_values


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save(answering(), tmp_path / "vqa.onnx")
    onnx.save(telling(), tmp_path / "caption.onnx")
    cv2.imwrite(str(tmp_path / "photo.png"), photo()[..., ::-1])
    cv2.imwrite(str(tmp_path / "again.png"), photo()[..., ::-1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(out: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(out)
    jsonschema.validate(manifest, json.loads((DOCS / "manifest.schema.json").read_text("utf-8")))
    return manifest


def test_a_question(words: Path, run: Any) -> None:
    command = ["explain", "vqa.onnx", "photo.png", "again.png", "--question", "How strong is green?", "-o", "out"]
    status, out, _ = run(*command)
    assert status == 0
    assert [line.split("  ")[:2] for line in out.splitlines()] == [
        [name, "How strong is green? green"] for name in ("photo.png", "again.png")
    ]
    status, out, _ = run(*command, "--json", "--overwrite")
    manifest = checked(out)
    assert manifest["request"]["question"] == "How strong is green?"
    row = manifest["results"][0]["rows"][0]
    assert (row["label"], row["question"]) == ("green", "How strong is green?")
    heatmap = np.load(words / "out" / row["npy"])
    assert heatmap[5:7, 5:7].min() > 0.5
    assert heatmap[1:3, 1:3].max() < 0.1


def test_a_question_about_arrays_and_both_sides(words: Path, run: Any) -> None:
    x = np.repeat(photo().transpose(2, 0, 1)[None].astype(np.float32) / 255, 2, axis=0)
    np.save(words / "two.npy", x)
    status, out, _ = run("explain", "vqa.onnx", "two.npy", "photo.png", "--question", "red", "--both", "--json")
    assert status == 0
    rows = [row for result in checked(out)["results"] for row in result["rows"]]
    assert len(rows) == 3 * 3
    assert {row["question"] for row in rows} == {"red"}


@pytest.mark.parametrize("last", [True, False])
def test_the_own_caption(last: bool, words: Path, run: Any) -> None:
    end = ["--json", "--caption"] if last else ["--caption", "--json"]
    status, out, _ = run("explain", "caption.onnx", "photo.png", "again.png", "-o", "out", *end)
    assert status == 0
    manifest = checked(out)
    assert manifest["request"]["sentence"] == "own"
    for result in manifest["results"]:
        assert [row["part"] for row in result["rows"]] == ["sentence", "1-red", "2-green"]
        assert [row["label"] for row in result["rows"]] == ["red green", "red", "green"]
        assert len({row["png"] for row in result["rows"]}) == 1


def test_a_given_caption_can_be_repeated(words: Path, run: Any) -> None:
    status, out, _ = run("explain", "caption.onnx", "photo.png", "--caption", "green red", "-o", "out", "--sheet")
    assert status == 0
    assert out.splitlines()[0].startswith("photo.png  green red  ")
    assert (words / "out" / "sheet.png").is_file()
    status, out, _ = run("explain", "--from", "out/manifest.json")
    assert status == 0
    assert out.count("same") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vqa.onnx", "photo.png", "--question", "how strang is red"], "does not know the word 'strang'"),
        (["vqa.onnx", "photo.png", "--question", "red red red red red red red"], "7 words are too many"),
        (["vqa.onnx", "photo.png", "--caption"], "no scores for each word"),
        (["caption.onnx", "photo.png", "--caption", "rad"], "does not know the word 'rad'"),
        (["caption.onnx", "photo.png", "--caption", "red", "--target", "top1", "--target", "2"], "--caption explains"),
        (["caption.onnx", "photo.png", "--caption", "red", "--both"], "--caption explains"),
        (["caption.onnx", "photo.png", "--caption", "red", "--question", "red"], "--caption explains"),
        (["caption.onnx", "x.npy", "--caption", "red"], "a caption is of photos"),
        (["vqa.onnx", "photo.png"], "--input question=FILE.npy"),
        (["vqa.onnx", "photo.png"], "--question TEXT"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str, words: Path, run: Any) -> None:
    np.save(words / "x.npy", np.zeros((1, 3, 8, 8), np.float32))
    status, _, err = run("explain", *arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


def test_a_vocabulary_from_a_file(words: Path, run: Any) -> None:
    onnx.save(answering(vocabulary=False), words / "bare.onnx")
    (words / "words.txt").write_text("<pad>\nwie\nstark\nist\nrot\ngrün\nblau\n", "utf-8")
    question = ["explain", "bare.onnx", "photo.png", "--question", "Wie stark ist grün?"]
    status, _, err = run(*question)
    assert status == 2
    assert "--vocabulary FILE" in err
    status, out, _ = run(*question, "--vocabulary", "words.txt")
    assert status == 0
    assert "green" in out


def test_a_bare_option_has_its_value_only_where_none_follows() -> None:
    assert with_values(["--caption"]) == ["--caption=own"]
    assert with_values(["--caption", "-o", "x"]) == ["--caption=own", "-o", "x"]
    assert with_values(["--caption", "a b", "--json"]) == ["--caption", "a b", "--json"]
    assert with_values(["--caption=a b"]) == ["--caption=a b"]
    assert with_values([]) == []
