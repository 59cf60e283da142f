"""What the torch road refuses, and says so."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason="torch: not installed")
pytest.importorskip("onnxscript", reason="torch: onnxscript is not installed")

from exports import quiet  # noqa: E402
from road_nets import Net, export  # noqa: E402
from torch import nn  # noqa: E402

import onnx_gradcam as ogc  # noqa: E402
from onnx_gradcam.graph.load import load  # noqa: E402
from onnx_gradcam.graph.names import gradient_names  # noqa: E402
from onnx_gradcam.roads.torch import exporting  # noqa: E402

WAYS = ("onnx", "torch")
CLASSES = np.array([-1, 2, 0])


# ------------------------------------------------------------------------------------ what is refused


def refused(module: Any, tmp_path: Path, layer: Any, x: Any = None, **settings: Any) -> ogc.OnnxGradcamError:
    example = torch.zeros(2, 3, 32, 32) if x is None else x
    with pytest.raises(ogc.OnnxGradcamError) as error:
        export(module, tmp_path / "model.onnx", layer, example, **settings)
    assert not (tmp_path / "model.onnx").exists()
    return error.value


@pytest.mark.parametrize("way", WAYS)
def test_an_input_and_an_output_called_as_ours_are(way: Any, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
    x, found = torch.randn(1, 3, 8, 8), {}
    for inputs, outputs in ((["x"], ["y"]), (["target_index"], ["grad/score"])):
        path = tmp_path / f"{inputs[0]}.onnx"
        settings = {"input_names": inputs, "output_names": outputs}
        export(module, path, ["1", *inputs], x, autodiff=way, **settings)
        called = gradient_names(load(path).model)
        assert called is not None
        feeds = {inputs[0]: x.numpy(), called.inputs["target_index"]: np.array([3])}
        names = [*outputs, called.score, called.class_index, called.gradients["1"], called.gradients[inputs[0]]]
        found[inputs[0]] = ort.InferenceSession(path).run(names, feeds)
        with pytest.raises(ogc.ModelError, match="a gradient graph that onnx-gradcam wrote"):
            ogc.Explainer(path)
    assert (called.score, called.inputs["target_index"]) == ("ogc/grad/score", "ogc/target_index")
    for a, b in zip(*found.values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_exports_at_once_come_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = threading.Lock()
    original = exporting.by_rules

    def alone(*arguments: Any) -> Any:
        assert busy.acquire(blocking=False), "two exports at once"
        try:
            return original(*arguments)
        finally:
            busy.release()

    monkeypatch.setattr(exporting, "by_rules", alone)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()

    def export_one(k: int) -> Path:
        return ogc.roads.torch.export(module, (torch.zeros(1, 3, 8, 8),), tmp_path / f"{k}.onnx", "1")

    with quiet(), ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(export_one, range(2)))
    feeds = {"input": np.ones((1, 3, 8, 8), np.float32), "target_index": np.array([1])}
    first, second = (ort.InferenceSession(path).run(["grad/1"], feeds)[0] for path in paths)
    np.testing.assert_array_equal(first, second)


def test_no_such_layer(tmp_path: Path) -> None:
    error = refused(Net(), tmp_path, "block.conv3")
    assert isinstance(error, ogc.LayerError)
    assert error.what == "the module has no part 'block.conv3'"
    assert "'block.conv1'" in error.hint


def test_a_layer_that_is_called_twice(tmp_path: Path) -> None:
    module = Net()
    error = refused(module, tmp_path, "block.relu")
    assert isinstance(error, ogc.LayerError)
    assert "is called 2 times" in error.what
    assert not any(part._forward_hooks for part in module.modules())
    assert module.training


class Pair(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Any) -> Any:
        return self.conv(self.pool(x)[0])


def test_a_layer_that_returns_a_tuple(tmp_path: Path) -> None:
    error = refused(Pair(), tmp_path, "pool")
    assert isinstance(error, ogc.LayerError)
    assert "returns tuple, not one tensor" in error.what


def test_many_scores_for_each_image_by_autograd(tmp_path: Path) -> None:
    error = refused(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid()), tmp_path, "0", autodiff="torch")
    assert isinstance(error, ogc.ScoreError)
    assert "many scores for each image" in error.what


def test_float16_by_autograd(tmp_path: Path) -> None:
    module, x = Net().half(), torch.zeros(2, 3, 32, 32, dtype=torch.float16)
    error = refused(module, tmp_path, "block", x, autodiff="torch")
    assert isinstance(error, ogc.ModelError)
    assert "FLOAT16" in error.what


class Generated(nn.Module):  # type: ignore[misc]
    """A convolution whose weights are made of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.weights = nn.Linear(4, 4 * 4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        w = self.weights(x.mean((0, 2, 3))).reshape(4, 4, 1, 1)
        return self.head(torch.nn.functional.conv2d(x, w).mean((2, 3)))


def test_weights_that_depend_on_the_layer_by_autograd(tmp_path: Path) -> None:
    error = refused(Generated(), tmp_path, "stem", autodiff="torch")
    assert isinstance(error, ogc.UnsupportedGradient)
    assert "weights of a convolution" in error.what
    assert "autodiff='onnx'" in error.hint


def test_an_example_that_is_no_tensor(tmp_path: Path) -> None:
    error = refused(Net(), tmp_path, "block", np.zeros((2, 3, 32, 32), np.float32))
    assert isinstance(error, ogc.InputError)
    assert error.what == "example input 0 is ndarray, not a tensor"


def test_a_layer_called_like_an_output(tmp_path: Path) -> None:
    error = refused(Net(), tmp_path, "block", output_names=["block"])
    assert isinstance(error, ogc.LayerError)
    assert "called like an input or output" in error.what


def test_an_export_that_computes_something_else(tmp_path: Path) -> None:
    """torch 2.13's exporter passes over divisor_override: 6 places divided by 5 instead of 6."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d((2, 3), divisor_override=5), nn.Flatten())
    error = refused(module, tmp_path, "0", torch.zeros(2, 3, 4, 8))
    assert isinstance(error, ogc.ForwardMismatch)
    assert error.name != "0"
    assert error.error == pytest.approx(1 / 6, rel=1e-3)
    path = tmp_path / "as_it_is.onnx"
    assert export(module, path, "0", torch.zeros(2, 3, 4, 8), check_forward=False).exists()


def test_an_unknown_way(tmp_path: Path) -> None:
    assert "autodiff='jax' is not known" in refused(Net(), tmp_path, "block", autodiff="jax").what
