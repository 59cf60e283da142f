"""Models with more than one input: which one is explained, and how the others are given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer.main
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.cli import app
from onnx_gradcam.jobs.explain import run
from onnx_gradcam.jobs.request import Request

ROWS, COLUMNS = 4, 6
command_line = typer.main.get_command(app)


def branch(net: Net, image: str, out: str) -> str:
    """The mean over three channels of an image, a ReLU, and the mean over space: (N, 1)."""
    x = net.op("Conv", net.input(image, ["N", 3, ROWS, COLUMNS]), net.array(np.full((1, 3, 1, 1), 1 / 3, np.float32)))
    return net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", x, out=out)))


def two_images() -> onnx.ModelProto:
    """The scores are the mean of "left" and that of "right"."""
    net = Net()
    features = [branch(net, "left", "left_map"), branch(net, "right", "right_map")]
    return net.model({net.op("Concat", *features, axis=1, out="scores"): ["N", 2]})


def an_image_and_its_weight() -> onnx.ModelProto:
    """The scores are weight · mean of "image", and its negative."""
    net = Net()
    x = net.op("Mul", branch(net, "image", "map"), net.input("weight", ["N", 1]))
    net.op("Gemm", x, net.array(np.array([[1, -1]], np.float32)), out="scores")
    return net.model({"scores": ["N", 2]})


def spot(*places: tuple[int, int]) -> np.ndarray:
    x = np.zeros((len(places), 3, ROWS, COLUMNS), np.float32)
    for k, (row, column) in enumerate(places):
        x[k, :, row, column] = 1
    return x


FEEDS = {"left": spot((1, 2), (0, 5)), "right": spot((3, 4), (2, 0))}


@pytest.mark.parametrize(("image", "index", "places"), [("left", 0, (8, 5)), ("right", 1, (22, 12))])
def test_the_image_that_is_named_is_explained(image: str, index: int, places: tuple[int, int]) -> None:
    with ogc.Explainer(two_images(), image_input=image) as explainer:
        found = explainer.explain(FEEDS, target=[index] * 2)
        assert explainer.target_layers == (f"{image}_map",)
        assert explainer.explain(FEEDS, target=[1 - index] * 2).is_blank.all()
    assert tuple(int(row.argmax()) for row in found.heatmap) == places
    assert not any("could be the image" in w for w in found.warnings)


def test_without_a_name_the_first_is_and_the_choice_is_said() -> None:
    with ogc.Explainer(two_images()) as explainer:
        found = explainer.explain(FEEDS, target=0)
    assert found.target_layer == "left_map"
    assert any("left, right could be the image: 'left' is explained" in w for w in found.warnings)
    with pytest.raises(ogc.InputError, match="no input 'lift'") as error:
        ogc.Explainer(two_images(), image_input="lift")
    assert "left" in error.value.hint
    assert ogc.layers(two_images())[0].name == "left_map"
    assert ogc.verify(two_images(), x={**FEEDS, "right": np.zeros_like(FEEDS["left"])}).ok


def test_the_image_that_is_named_is_inspected_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(two_images().SerializeToString())
    assert [layer.name for layer in ogc.layers(path, image_input="right")] == ["right_map"]
    report = ogc.verify(path, image_input="right")
    assert report.ok
    assert report.layers == ("right_map",)
    command_line(["inspect", str(path), "--image-input", "right", "--json"], standalone_mode=False)
    assert [layer["name"] for layer in json.loads(capsys.readouterr().out)["layers"]] == ["right_map"]
    command_line(["verify", str(path), "--image-input", "right", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["layers"] == ["right_map"]
    for command in ("inspect", "verify"):
        with pytest.raises(ogc.InputError, match="no input 'lift'"):
            command_line([command, str(path), "--image-input", "lift"], standalone_mode=False)


def test_other_inputs_weigh_in() -> None:
    feeds = {"image": spot((1, 2), (3, 5)), "weight": np.array([[2], [-3]], np.float32)}
    with ogc.Explainer(an_image_and_its_weight()) as explainer:
        found = explainer.explain(feeds, target=0)
        assert found.is_blank.tolist() == [False, True]
        top = explainer.explain(feeds)
    assert top.class_index.tolist() == [0, 1]
    np.testing.assert_allclose(top.cam.max((1, 2)), [2 / 24, 3 / 24], rtol=1e-6)
    assert [int(row.argmax()) for row in top.heatmap] == [8, 23]
    assert ogc.verify(an_image_and_its_weight(), x=feeds).ok


def test_the_command_line_takes_the_others_as_files(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(two_images().SerializeToString())
    for name, array in FEEDS.items():
        np.save(tmp_path / f"{name}.npy", array[:1])
    request = Request(
        str(tmp_path / "model.onnx"),
        (str(tmp_path / "right.npy"),),
        targets=("1",),
        inputs=(f"left={tmp_path / 'left.npy'}",),
        model_options={"image_input": "right"},
    )
    manifest = json.loads(run(request, tmp_path / "out").manifest.read_text("utf-8"))
    assert manifest["layers"] == ["right_map"]
    assert manifest["request"]["image_input"] == "right"
    assert np.load(tmp_path / "out" / "right.gradcam.1.npy").argmax() == 22
