"""The pairs that agree least: which they are, their pictures, and the folder that holds them."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from brightness import PREPROCESS, SIDE, brightness_model
from jsonschema import Draft202012Validator
from repository import MODELS, ROOT

import onnx_gradcam as ogc
from onnx_gradcam.cli import main
from onnx_gradcam.jobs.compare import Pair
from onnx_gradcam.jobs.compare.worst import worst_of
from onnx_gradcam.results.picture.style import PLAIN

RESNET, VGG = (MODELS / f"shapes-{name}.onnx" for name in ("resnet", "vgg"))
FORM = {**PREPROCESS, "resize": "stretch"}
SCHEMA = json.loads((ROOT / "docs" / "comparison.schema.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def comparison() -> Any:
    return ogc.compare(RESNET, VGG, MODELS / "images", keep=2)


def pair(image: str, pearson: float | None, distance: float | None) -> Pair:
    return Pair(image, 0, 1, "cat", "1", 1, 1, pearson, pearson, distance, distance)


def test_the_worst_come_first() -> None:
    pairs = [pair("a", 0.5, 0.1), pair("b", None, None), pair("c", 0.2, 0.1), pair("d", 0.5, 0.3), pair("e", 0.9, 0)]
    assert [p.image for p in worst_of(pairs, 3)] == ["c", "d", "a"]
    assert [p.image for p in worst_of(pairs, 9)] == ["c", "d", "a", "e"]  # b: both maps are blank
    assert worst_of(pairs, 0) == []


def test_the_worst_pairs_keep_their_maps(comparison: Any) -> None:
    by_pearson = sorted(comparison.pairs, key=lambda p: p.pearson)
    assert [each.pair for each in comparison.worst] == by_pearson[:2]
    for each in comparison.worst:
        with ogc.Explainer(RESNET) as a, ogc.Explainer(VGG) as b:
            of_a = a.explain_image(each.pair.image)
            of_b = b.explain_image(each.pair.image, int(of_a.class_index[0]))
        np.testing.assert_array_equal(each.a.heatmap, of_a.heatmap)
        np.testing.assert_array_equal(each.b.heatmap, of_b.heatmap)
    assert ogc.compare(RESNET, VGG, MODELS / "images").worst == ()


def test_a_picture_has_both_maps_and_their_difference(comparison: Any) -> None:
    """Where A has more the difference is orange, where B has more blue: compared with the photo without any map."""
    worst = comparison.worst[0]
    picture = worst.figure()
    bare = worst.figure(ogc.Style(caption=False))
    assert picture.dtype == bare.dtype == np.uint8
    assert picture.shape[0] > bare.shape[0]
    third = bare.shape[1] // 3
    difference = bare[:, -third:].astype(int)
    more_in_a = worst.a.heatmap[0] - worst.b.heatmap[0]
    y, x = np.unravel_index(more_in_a.argmax(), more_in_a.shape)
    v, u = np.unravel_index(more_in_a.argmin(), more_in_a.shape)
    scale = third / more_in_a.shape[1]
    orange, blue = (difference[int(r * scale), int(c * scale)] for r, c in ((y, x), (v, u)))
    assert orange[0] > orange[2]
    assert blue[2] > blue[0]


def test_the_folder(comparison: Any, tmp_path: Path) -> None:
    path = comparison.save(tmp_path / "out")
    content = json.loads(path.read_text("utf-8"))
    Draft202012Validator(SCHEMA).validate(content)
    drawn = [entry["picture"] for entry in content["pairs"] if entry["picture"]]
    assert sorted(drawn) == sorted(content["files"]) == sorted(p.name for p in path.parent.glob("*.png"))
    for name, digest in content["files"].items():
        assert hashlib.sha256((path.parent / name).read_bytes()).hexdigest() == digest
    first = next(name for name in drawn if name.startswith("worst-01."))
    decoded = cv2.imdecode(np.fromfile(path.parent / first, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decoded, comparison.worst[0].figure())
    of_first = next(entry for entry in content["pairs"] if entry["picture"] == first)
    assert of_first["image"] == comparison.worst[0].pair.image


def test_an_earlier_comparison_is_replaced_as_a_whole(comparison: Any, tmp_path: Path) -> None:
    comparison.save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(ogc.OutputError, match="already holds a comparison"):
        comparison.save(tmp_path)
    other = ogc.compare(RESNET, VGG, MODELS / "images" / "cross.png", keep=1)
    content = json.loads(other.save(tmp_path, overwrite=True).read_text("utf-8"))
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"comparison.json", "notes.txt", *content["files"]}
    (tmp_path / "comparison.json").write_text("[]", "utf-8")
    with pytest.raises(ogc.OutputError, match="no comparison of this tool"):
        other.save(tmp_path, overwrite=True)


def test_hashes_versions_preprocessing_and_request(comparison: Any) -> None:
    content = json.loads(json.dumps(comparison.as_dict(), allow_nan=False))
    Draft202012Validator(SCHEMA).validate(content)
    for side, path in (("a", RESNET), ("b", VGG)):
        assert content[side]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert content[side]["preprocess"]["mean"]["value"] == [0.5, 0.5, 0.5]
        assert content[side]["preprocess"]["mean"]["source"].startswith(("declared", "chosen"))
    for entry in content["pairs"]:
        assert entry["sha256"] == hashlib.sha256(Path(entry["image"]).read_bytes()).hexdigest()
    assert set(content["versions"]) >= {"onnx-gradcam", "onnx", "numpy"}
    assert content["request"]["method"] == "gradcam"
    assert content["request"]["keep"] == 2


def test_the_request_of_objects_is_json_too() -> None:
    found = ogc.compare(
        brightness_model(), brightness_model(), [np.zeros((9, 9, 3), np.uint8)], preprocess=stretched,
        target=ogc.Classes([np.int64(0)]), method="IntegratedGradients", options={"steps": 2, "baseline": np.ones(1)},
    )  # fmt: skip
    content = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    Draft202012Validator(SCHEMA).validate(content)
    assert content["request"]["preprocess"] == "stretched"
    assert content["request"]["baseline"] == "array (1,)"
    assert content["request"]["method"] == "integrated-gradients"
    assert content["a"]["preprocess"]["function"]["value"] == "stretched"
    assert content["pairs"][0]["sha256"] is None


def stretched(photo: np.ndarray) -> np.ndarray:
    return np.full((3, SIDE, SIDE + 16), photo.mean() / 255, np.float32)


def test_strict(tmp_path: Path) -> None:
    onnx.save(brightness_model(), tmp_path / "model.onnx")
    photos = [np.full((20, 20, 3), 200, np.uint8)]
    with pytest.raises(ogc.PreprocessError, match="is guessed") as error:
        ogc.compare(brightness_model(), brightness_model(), photos, strict=True)
    assert "--preprocess NAME" in error.value.hint
    with pytest.raises(ogc.PreprocessError, match="is guessed") as error:
        ogc.compare(brightness_model(), brightness_model(), photos, preprocess=FORM, preprocess_b="auto", strict=True)
    assert "--preprocess-b NAME" in error.value.hint
    assert ogc.compare(brightness_model(), brightness_model(), photos, preprocess=FORM, strict=True).pairs


def test_options_of_one_model_only() -> None:
    """Two builds whose image input is called otherwise, beside another one with as many axes."""
    a, b = (two_inputs(names) for names in (("image", "other"), ("other", "picture")))
    x = np.zeros((1, 3, 8, 8), np.float32)
    x[0, :, 2, 3] = 1
    with pytest.raises(ogc.InputError):
        ogc.compare(a, b, [spot()], inputs={"other": x}, only_a={"image_input": "image"}, image_input="nothing")
    found = ogc.compare(
        a, b, [spot()], inputs={"other": x}, preprocess={"preset": "zero-one", "size": [8, 8]},
        only_a={"image_input": "image"}, only_b={"image_input": "picture"},
    )  # fmt: skip
    assert found.pairs[0].pearson == pytest.approx(1)
    assert found.request["opening_b"] == {"image_input": "picture"}


def spot() -> np.ndarray:
    photo = np.zeros((8, 8, 3), np.uint8)
    photo[2:4, 5:7] = 255
    return photo


def two_inputs(names: tuple[str, str]) -> onnx.ModelProto:
    """The scores are the mean of the input "image" or "picture" and that of the other."""
    from nets import Net

    net = Net()
    features = []
    for name in names:
        x = net.op("Conv", net.input(name, ["N", 3, 8, 8]), net.array(np.full((1, 3, 1, 1), 1 / 3, np.float32)))
        features.append(net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", x))))
    ordered = features if names[0] == "image" else features[::-1]
    return net.model({net.op("Concat", *ordered, axis=1, out="scores"): ["N", 2]})


def test_the_command_line(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    images = [str(MODELS / "images" / f"{name}.png") for name in ("cross", "drop")]

    def run(*more: str) -> int:
        arguments = ["compare", str(RESNET), str(VGG), *images, "-o", str(out), "--worst", "1", "--strict", *more]
        monkeypatch.setattr(sys, "argv", ["onnx-gradcam", *arguments])
        with pytest.raises(SystemExit) as status:
            main()
        return int(status.value.code or 0)

    assert run() == 0
    assert f"written {out / 'comparison.json'}" in capsys.readouterr().out
    assert run() == 2
    assert "already holds a comparison" in capsys.readouterr().err
    assert run("--overwrite", "--json") == 0
    content = json.loads((out / "comparison.json").read_text("utf-8"))
    assert json.loads(capsys.readouterr().out) == content
    assert list(content["files"]) == ["worst-01.drop.png"]


def test_compare_has_every_option_of_explain() -> None:
    """All that changes a map of a photo; not where it goes, and what needs a single model or another kind of file."""
    import typer.main

    from onnx_gradcam.cli import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    explain, compare = (
        {o for p in commands[c].params for o in p.opts if o[:2] == "--"} for c in ("explain", "compare")
    )
    of_one_model = {"--both", "--true", "--from", "--resume", "--scale", "--sheet", "--failures", "--limit"}
    of_other_files = {"--question", "--caption", "--vocabulary", "--tile", "--every"}
    assert explain - compare == of_one_model | of_other_files


def test_a_style_reaches_the_pictures(comparison: Any) -> None:
    plain, other = (comparison.worst[0].figure(style) for style in (PLAIN, ogc.Style(colormap="viridis")))
    assert plain.shape == other.shape
    assert (plain != other).any()
