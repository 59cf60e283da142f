"""``attack``: one line and one picture for each photo, JSON, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from labelled import LABELS, SIDE, network, photo
from nets import Net
from repository import DOCS

import onnx_gradcam as ogc

SCHEMA = json.loads((DOCS / "attack.schema.json").read_text("utf-8"))
OUT = Path("onnx-gradcam-out/model-fgsm-attack")
ATTACK = ("attack", "model.onnx", "photos", "--preprocess", "zero-one,stretch", "--provider", "cpu")
KEYWORDS: dict[str, Any] = {"preprocess": "zero-one,stretch", "labels": LABELS, "providers": ["cpu"]}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "model.onnx").write_bytes(network().SerializeToString())
    (tmp_path / "labels.txt").write_text("\n".join(LABELS), "utf-8")
    for seed, name in enumerate(("heart", "star")):
        photo(tmp_path / "photos" / name / f"{seed}.png", seed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_lines_pictures_and_tensors(photos: Path, run: Any) -> None:
    status, out, err = run(*ATTACK, "--labels", "labels.txt", "--epsilon", "60")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    expected = ogc.attack("model.onnx", "photos/heart/0.png", epsilon=60, **KEYWORDS)
    first, last = (
        f"{expected.label(int(c[0]))} {p[0, c[0]]:.3f}"
        for c, p in (
            (expected.before, expected.probabilities_before),
            (expected.after, expected.probabilities_after),
        )
    )
    verdict = "changed" if expected.success[0] else "not changed"
    assert lines[0] == f"photos/heart/0.png  {first} → {last}  {verdict} by 60 grey levels"
    assert lines[-2].startswith("fgsm, linf ≤ 60 grey levels: ")
    assert lines[-1] == f"written {OUT / 'attack.json'}"
    np.testing.assert_array_equal(np.load(OUT / "heart" / "0.adversarial.npy"), expected.adversarial)
    assert {file.relative_to(OUT).as_posix() for file in OUT.rglob("*.*")} == {
        "heart/0.attack.png", "heart/0.adversarial.npy", "star/1.attack.png", "star/1.adversarial.npy", "attack.json",
    }  # fmt: skip
    picture = cv2.imread(str(OUT / "heart" / "0.attack.png"))
    enlarged = cv2.resize(cv2.imread("photos/heart/0.png"), (240, 240), interpolation=cv2.INTER_NEAREST)
    found = cv2.matchTemplate(picture, enlarged, cv2.TM_SQDIFF)
    assert found.min() < 1e-6 * found.max()  # the photo as the model sees it stands in the picture


def test_json_with_true_classes_from_folders(photos: Path, run: Any) -> None:
    how = ("--true", "folder", "--labels", "labels.txt", "--attack", "pgd", "--steps", "3", "--target", "moon")
    status, out, _ = run(*ATTACK, *how, "--norm", "l2", "--json", "-o", "out")
    assert status == 0
    content = json.loads(out)
    jsonschema.validate(content, SCHEMA)
    assert content == json.loads(Path("out/attack.json").read_text("utf-8"))
    assert [row["true"]["label"] for row in content["rows"]] == ["heart", "star"]
    right = [row for row in content["rows"] if row["before"] == row["true"]]
    assert content["right_before"] == len(right)
    assert content["changed"] == sum(row["after"]["label"] == "moon" for row in right)
    assert (content["epsilon"], content["step_size"], content["steps"]) == (128, 2.5 * 128 / 3, 3)
    assert all(row["used"] <= 128 * 1.0001 for row in content["rows"])


def test_an_array_a_broken_photo_and_earlier_results(photos: Path, run: Any) -> None:
    x = np.random.default_rng(0).random((3, SIDE, SIDE)).astype(np.float32)
    np.save(photos / "photos" / "x.npy", x)
    (photos / "photos" / "broken.png").write_bytes(b"no photo")
    status, out, err = run(*ATTACK, "--json")
    assert status == 2
    assert "error: photos/broken.png" in err
    content = json.loads(out)
    assert [Path(row["image"]).name for row in content["rows"]] == ["0.png", "1.png", "x.npy"]
    assert [Path(error["image"]).name for error in content["errors"]] == ["broken.png"]
    status, _, err = run(*ATTACK)
    assert status == 2
    assert "already holds an attack" in err


@pytest.mark.parametrize(("options", "text"), [
    (("--attack", "fgms"), "unknown attack 'fgms'"),
    (("--epsilon", "-1"), "epsilon is -1.0"),
    (("--target", "9"), "class 9 is out of range"),
    (("--method", "dff"), "has a map for each concept, and none for a class"),
])  # fmt: skip
def test_what_cannot_be_done_is_said_before_any_work(photos: Path, run: Any, options: Any, text: str) -> None:
    status, out, err = run(*ATTACK, *options)
    assert (status, out) == (2, "")
    assert text in err


def test_an_input_without_pixels_names_the_way_in_python(photos: Path, run: Any) -> None:
    net = Net()
    x = net.op("Relu", net.op("Conv", net.input("x", ["N", 2, 16]), net.array(np.ones((4, 2, 3), np.float32))))
    signal = net.model({net.head(x, 4, 3): ["N", 3]})
    Path("signal.onnx").write_bytes(signal.SerializeToString())
    np.save("signal.npy", np.ones((1, 2, 16), np.float32))
    status, out, err = run("attack", "signal.onnx", "signal.npy", "--provider", "cpu")
    assert (status, out) == (2, "")
    assert "holds no pixels of a photo" in err
    assert "attack(model, array, epsilon=0.1, preprocess=None)" in err
