"""Weights in other files: whatever lies there, and wherever in the model it belongs, the model is the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import builders
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from external import save_beside
from nets import Net, feeds, run
from onnx import external_data_helper, helper, numpy_helper

import onnx_gradcam as ogc
from onnx_gradcam.graph.load import load

MODEL = builders.plain()
FED = feeds(MODEL)
EXPECTED = run(MODEL, FED)["logits"]


def logits(path: Path | str) -> np.ndarray:
    found: np.ndarray = run(ir.to_proto(load(path).model), FED)["logits"]
    return found


def in_a_branch() -> onnx.ModelProto:
    """The logits are scaled by weights in a branch of an If that depends on the image."""
    net = Net()
    relu = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4), out="conv"), out="relu")
    net.head(relu, 4, out="raw")
    total = net.op("ReduceSum", relu, keepdims=0)
    branches = {}
    for name, factor in {"then_branch": 2.0, "else_branch": -3.0}.items():
        node = helper.make_node("Mul", ["raw", f"{name}_w"], [f"{name}_y"])
        weight = numpy_helper.from_array(np.full(5, factor, np.float32), f"{name}_w")
        output = helper.make_tensor_value_info(f"{name}_y", 1, ["N", 5])
        branches[name] = helper.make_graph([node], name, [], [output], [weight])
    net.op("If", net.op("Greater", total, net.array(np.float32(0))), out="logits", **branches)
    return net.model({"logits": ["N", 5]})


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "initializers": builders.plain,
    "constants": builders.HABITS["constant_weights"],
    "function": builders.HABITS["with_function"],
    "branch": in_a_branch,
}


@pytest.mark.parametrize("one_file", [True, False], ids=["one_file", "a_file_each"])
@pytest.mark.parametrize("make", list(MODELS.values()), ids=list(MODELS))
def test_wherever_the_weights_belong(make: Callable[[], onnx.ModelProto], one_file: bool, tmp_path: Path) -> None:
    path = save_beside(tmp_path, make(), one_file=one_file)
    held = onnx.load(path, load_external_data=False)
    assert any(t.data_location == onnx.TensorProto.EXTERNAL for t in external_data_helper._get_all_tensors(held))
    fed = feeds(make())
    np.testing.assert_array_equal(run(ir.to_proto(load(path).model), fed)["logits"], run(make(), fed)["logits"])


def test_parts_of_one_file_at_other_places(tmp_path: Path) -> None:
    """Offsets that are no multiples of anything, and a tensor without a length."""
    model, data = builders.plain(), b"xyz"
    for number, tensor in enumerate(model.graph.initializer):
        raw = numpy_helper.to_array(tensor).tobytes()
        tensor.ClearField("float_data")
        tensor.raw_data = raw
        external_data_helper.set_external_data(tensor, "w.bin", offset=len(data), length=len(raw) if number else None)
        tensor.ClearField("raw_data")
        data += raw + b"?" * number
    (tmp_path / "w.bin").write_bytes(data)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    np.testing.assert_array_equal(logits(tmp_path / "model.onnx"), EXPECTED)


@pytest.mark.parametrize("link", [os.link, os.symlink], ids=["hard", "symbolic"])
def test_links_as_caches_make_them(link: Callable[[Path, Path], None], tmp_path: Path) -> None:
    """A cache keeps a file under its hash, and links to it under its name."""
    store, cache = tmp_path / "blobs", tmp_path / "snapshot"
    store.mkdir()
    cache.mkdir()
    save_beside(store, builders.plain())
    for name in ("model.onnx", "model.bin"):
        link(store / name, cache / name)
    np.testing.assert_array_equal(logits(cache / "model.onnx"), EXPECTED)


# --- the files change after the model was read ---------------------------------------------------------------


def removed(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def shortened(folder: Path) -> None:
    for file in folder.iterdir():
        with file.open("r+b") as opened:
            opened.truncate(1)


def exported_anew(folder: Path) -> None:
    other = builders.plain()
    for tensor in other.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(array + np.asarray(1, array.dtype), tensor.name))
    save_beside(folder, other)


@pytest.mark.parametrize("change", [removed, shortened, exported_anew])
def test_files_that_change_after_the_model_was_read(change: Callable[[Path], None], tmp_path: Path) -> None:
    """The first run compares with the deployed model, and the manifest names its hash: both as they were read."""
    path = save_beside(tmp_path, builders.plain())
    with ogc.Explainer(builders.plain(), providers=["cpu"]) as inside, ogc.Explainer(path, providers=["cpu"]) as opened:
        sha256 = opened.network.sha256
        change(tmp_path)
        expected = inside.explain(FED["x"], method="integrated-gradients", target=ogc.Finer(1))
        found = opened.explain(FED["x"], method="integrated-gradients", target=ogc.Finer(1))
    np.testing.assert_array_equal(found.heatmap, expected.heatmap)
    np.testing.assert_array_equal(found.outputs["logits"], expected.outputs["logits"])
    assert found.provenance.sha256 == sha256


def test_the_working_folder_changes_after_the_model_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_beside(tmp_path, builders.plain())
    monkeypatch.chdir(tmp_path)
    with ogc.Explainer("model.onnx", providers=["cpu"]) as explainer:
        monkeypatch.chdir("/")
        explanation = explainer.explain(FED["x"])
    np.testing.assert_allclose(explanation.outputs["logits"], EXPECTED, rtol=1e-5)
    assert explanation.provenance.model == "model.onnx"


# --- what is refused -----------------------------------------------------------------------------------------


def declaring(folder: Path, **entries: str) -> Path:
    """A model whose first tensor declares other entries."""
    path = save_beside(folder, builders.plain())
    model = onnx.load(path, load_external_data=False)
    kept = {entry.key: entry.value for entry in model.graph.initializer[0].external_data} | entries
    del model.graph.initializer[0].external_data[:]
    for key, value in kept.items():
        model.graph.initializer[0].external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "/etc/passwd"}, "where no model may"),
        ({"location": "../model.bin"}, "where no model may"),
        ({"location": ""}, "where no model may"),
        ({"location": "other.bin"}, "is missing"),
        ({"offset": "-4"}, "does not say where"),
        ({"offset": "many"}, "does not say where"),
        ({"length": "4"}, "does not say where"),
        ({"offset": "4000000"}, "is truncated"),
    ],
    ids=lambda case: " ".join(case.values()) if isinstance(case, dict) else "",
)
def test_places_that_are_none(entries: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ogc.ModelError, match=words) as caught:
        load(declaring(tmp_path, **entries))
    assert MODEL.graph.initializer[0].name in caught.value.where
    assert caught.value.hint
