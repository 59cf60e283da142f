"""What is missing or known to nobody is named: operators before the score, further inputs, dimensions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from nets import BATCH, Net

import onnx_gradcam as ogc

SIDE = 16


def trunk(net: Net) -> str:
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, SIDE, SIDE]), (3, 6)), out="features")
    return net.op("Flatten", net.op("GlobalAveragePool", x), out="flat")


def ended(net: Net, y: str, dims: list[int | str] | None) -> onnx.ModelProto:
    net.op("Softmax", y, axis=1, out="p")
    return net.model({"p": dims})


def with_fc() -> onnx.ModelProto:
    """It ends in FC, Caffe2's fully connected layer, as some converters left it."""
    net = Net()
    return ended(net, net.op("FC", trunk(net), net.random(5, 6), net.random(5), out="fc"), [BATCH, 5])


def with_padding() -> onnx.ModelProto:
    net = Net()
    x = net.op("LegacyPadding", net.conv(net.input("x", [BATCH, 3, SIDE, SIDE]), (3, 6)))
    return ended(net, net.head(x, 6), [BATCH, 5])


def with_library(declared: bool) -> onnx.ModelProto:
    """It ends in an operator of a library of custom operators, whose result it declares or not."""
    net = Net()
    net.domains["my.ops"] = 1
    return ended(net, net.op("Magic", trunk(net), domain="my.ops", out="magic"), [BATCH, 5] if declared else None)


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), pixels)
    monkeypatch.chdir(tmp_path)
    return "photo.png"


@pytest.mark.parametrize(
    ("model", "operator", "node", "way"),
    [
        (with_fc(), "ONNX has no operator 'FC', and so no runtime has it", "node_fc", "(Gemm is ONNX's)"),
        (with_padding(), "ONNX has no operator 'LegacyPadding'", "node_v1", "(Pad is ONNX's)"),
        (with_library(True), "'my.ops::Magic' is an operator of nobody but", "node_magic", "--custom-ops LIBRARY"),
        (with_library(False), "'my.ops::Magic' is an operator of nobody but", "node_magic", "--custom-ops LIBRARY"),
    ],
    ids=["FC", "LegacyPadding", "declared", "open"],
)
def test_operators_that_nobody_defines_are_named(
    model: onnx.ModelProto, operator: str, node: str, way: str, photo: str, run: Any
) -> None:
    """As errors of what runs the model, and as a warning of what looks at it; never as a missing score alone."""
    onnx.save(model, "model.onnx")
    for command in (["explain", "model.onnx", photo], ["verify", "model.onnx"]):
        status, _, errors = run(*command)
        assert (status, operator in errors, repr(node) in errors, way in errors) == (2, True, True, True), errors
        assert "no output holds" not in errors
    status, out, _ = run("inspect", "model.onnx")
    assert status == 0
    assert operator in out
    assert "no output holds" not in out
    (line,) = (row for row in out.splitlines() if row.strip().startswith("1 ") and operator.split("'")[1] in row)
    assert "unknown: " in line


def test_the_error_holds_the_operator() -> None:
    with ogc.Explainer(with_fc(), providers=["cpu"]) as explainer, pytest.raises(ogc.UnknownOperator) as error:
        explainer.explain(np.zeros((1, 3, SIDE, SIDE), np.float32))
    assert (error.value.op_type, error.value.domain, error.value.node) == ("FC", "", "node_fc")


def test_operators_that_only_onnxruntime_has_are_known(photo: str, run: Any) -> None:
    net = Net()
    net.domains["com.microsoft"] = 1
    y = net.op("QuickGelu", net.linear(trunk(net), 6, 5), domain="com.microsoft")
    onnx.save(ended(net, net.linear(y, 5, 4), [BATCH, 4]), "model.onnx")
    assert run("explain", "model.onnx", photo)[0] == 0
    assert "unknown: " not in run("inspect", "model.onnx")[1]


def test_values_before_an_unknown_output_are_listed(photo: str, run: Any) -> None:
    """Nothing is known of the outputs, and yet the values that --score may name are shown."""
    onnx.save(with_library(False), "model.onnx")
    overview = json.loads(run("inspect", "model.onnx", "--json")[1])
    assert [v["name"] for v in overview["values"]][:3] == ["flat", "v2", "features"]
    out = run("inspect", "model.onnx")[1]
    assert "'p' (?) float32" in out, "not even the number of axes is known"
    assert "flat  (N, 6)  Flatten" in out


def test_open_sizes_are_question_marks(photo: str, run: Any) -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, "H", "W"]), (3, 6), stride=2), out="features")
    net.conv(x, (6, 2), out="depth")
    onnx.save(net.model({"depth": [BATCH, 2, None, None]}), "model.onnx")  # type: ignore[list-item]
    out = run("inspect", "model.onnx")[1]
    assert "features  (N, 6, ?, ?)  Relu" in out
    assert "unk__" not in out
    assert "unk__" not in run("inspect", "model.onnx", "--json")[1]
    assert "unk__" not in run("explain", "model.onnx", photo)[2]


def two_inputs() -> onnx.ModelProto:
    net = Net()
    y = net.linear(trunk(net), 6, 5)
    size = net.op("Gemm", net.input("im_shape", [BATCH, 2]), net.random(5, 2), transB=1)
    ids = net.op("Cast", net.input("ids", [BATCH, "T"], np.int64), to=onnx.TensorProto.FLOAT)
    y = net.op("Add", net.op("Add", y, size), net.op("ReduceSum", ids, net.ints(1), keepdims=1))
    return ended(net, y, [BATCH, 5])


@pytest.mark.parametrize("command", ["explain M PHOTO", "compare M M PHOTO", "inspect M --image PHOTO"])
def test_inputs_that_are_missing_are_named_with_their_option(command: str, photo: str, run: Any) -> None:
    onnx.save(two_inputs(), "model.onnx")
    np.save("shape.npy", np.ones((1, 2), np.float32))
    np.save("ids.npy", np.ones((1, 3), np.int64))
    words = [{"M": "model.onnx", "PHOTO": photo}.get(word, word) for word in command.split()]
    status, _, errors = run(*words)
    assert status == 2
    assert "no value for the model's inputs 'im_shape' (?, 2) float32, 'ids' (?, ?) int64" in errors
    assert "--input im_shape=FILE.npy --input ids=FILE.npy" in " ".join(errors.split())
    fed = ["--input", "im_shape=shape.npy", "--input", "ids=ids.npy"]
    assert "'ids' (?, ?) int64" in run(*words, *fed[:2])[2]
    assert run(*words, *fed)[0] == 0


def test_an_array_for_the_input_that_takes_the_photo_is_refused(photo: str, run: Any) -> None:
    """It would take the photo's place, and the map of the array would be drawn on the photo."""
    onnx.save(two_inputs(), "model.onnx")
    np.save("x.npy", np.zeros((1, 3, SIDE, SIDE), np.float32))
    np.save("shape.npy", np.ones((1, 2), np.float32))
    np.save("ids.npy", np.ones((1, 3), np.int64))
    fed = ["--input", "x=x.npy", "--input", "im_shape=shape.npy", "--input", "ids=ids.npy"]
    for command in (["explain", "model.onnx"], ["compare", "model.onnx", "model.onnx"]):
        for image in (photo, "x.npy"):
            status, _, errors = run(*command, image, *fed)
            assert status == 2
            assert "the input 'x' takes the photo, and an array was given for it as well" in errors
        assert run(*command, photo, *fed[2:])[0] == 0


def test_inspect_shows_a_model_without_a_score_beside_a_photo(photo: str, run: Any) -> None:
    net = Net()
    trunk(net)
    net.op("Mul", net.conv("features", (6, 1), out="raw"), net.array(np.float32(3)), out="depth")
    onnx.save(net.model({"depth": [BATCH, 1, SIDE, SIDE]}), "model.onnx")
    status, out, errors = run("inspect", "model.onnx", "--image", photo)
    assert (status, errors) == (0, "")
    assert "raw  (N, 1, 16, 16)  Conv" in out
    assert "the model gives no probabilities by which it could be told" in out


def test_a_preprocessing_as_json_text(photo: str, run: Any) -> None:
    net = Net()
    onnx.save(ended(net, net.linear(trunk(net), 6, 5), [BATCH, 5]), "model.onnx")
    form = json.dumps({"preset": "tf", "channels": "BGR"})
    assert run("explain", "model.onnx", photo, "--preprocess", form, "-o", "out")[0] == 0
    record = json.loads(Path("out/manifest.json").read_text("utf-8"))["results"][0]["preprocess"]
    assert record["channels"] == {"value": "BGR", "source": "chosen: the preprocess argument"}
    assert record["scale"]["value"] == 1 / 127.5
    status, _, errors = run("explain", "model.onnx", photo, "--preprocess", '{"preset": "tf",', "-o", "again")
    assert (status, "is not JSON" in errors) == (2, True)


def test_labels_for_some_of_the_classes_alone_are_noticed(photo: str, run: Any) -> None:
    net = Net()
    onnx.save(ended(net, net.linear(trunk(net), 6, 5), [BATCH, 5]), "model.onnx")
    Path("labels.txt").write_text("cat\ndog\n")
    warning = "2 labels for 5 classes"
    assert warning in " ".join(run("explain", "model.onnx", photo, "--labels", "labels.txt", "-o", "a")[2].split())
    Path("labels.txt").write_text("cat\ndog\nfox\nhen\nowl\n")
    assert "labels for" not in run("explain", "model.onnx", photo, "--labels", "labels.txt", "-o", "b")[2]
