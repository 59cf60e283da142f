"""Networks over one and three spatial axes: layer, map and files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.explain.inputs import input_specs
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.jobs import explain as job
from onnx_gradcam.jobs.repeat import repeat
from onnx_gradcam.jobs.request import Request


def spot(net: Net, x: str, channels: int, space: int) -> str:
    """Of a value (N, C, *space): the mean over channels, a ReLU and a head that takes the mean over space."""
    weight = np.full((2, channels, *[1] * space), 1 / channels, np.float32)
    x = net.op("Relu", net.op("Conv", x, net.array(weight)), out="relu")
    return net.op("Gemm", net.op("Flatten", net.op("GlobalAveragePool", x)), net.array(np.eye(2, 3, dtype=np.float32)))


@pytest.mark.parametrize(
    ("dims", "perm", "place"),
    [
        ([9, 2], [0, 2, 1], (6,)),
        ([2, 9], None, (6,)),
        ([3, 4, 5, 2], [0, 4, 1, 2, 3], (2, 0, 3)),
        ([2, 3, 4, 5], None, (2, 0, 3)),
    ],
)
def test_the_place_that_decides_is_the_maximum(dims: list[int], perm: list[int] | None, place: tuple[int, ...]) -> None:
    net = Net()
    x = net.input("x", ["N", *dims])
    y = spot(net, x if perm is None else net.op("Transpose", x, perm=perm), 2, len(place))
    size = tuple(dims[:-1] if perm else dims[1:])
    image = np.zeros((2, *size), np.float32)
    image[(1, *place)] = 1
    array = np.stack([image, image], -1 if perm else 1)
    proto = net.model({y: ["N", 3]})
    with ogc.Explainer(proto) as explainer:
        found = explainer.explain(array, target=[0, 0])
        assert [layer.dims[1:] for layer in explainer.network.layers] == [(2, *size)]
    assert found.heatmap.shape == (2, *size)
    assert found.is_blank.tolist() == [True, False]
    assert np.unravel_index(found.heatmap[1].argmax(), size) == place
    assert found.heatmap[1].max() == 1
    assert (found.heatmap[1] > 0).sum() == 1
    assert ogc.verify(proto).ok
    with pytest.raises(ogc.OnnxGradcamError, match=f"a map with {len(size)} spatial"):
        found.overlay()


@pytest.mark.parametrize("dims", [[2, 9], [2, 3, 4, 5]], ids=str)
def test_two_sides_that_cannot_be_drawn_are_numbers(dims: list[int], tmp_path: Path) -> None:
    net = Net()
    y = spot(net, net.input("x", ["N", *dims]), 2, len(dims) - 1)
    (tmp_path / "model.onnx").write_bytes(net.model({y: ["N", 3]}).SerializeToString())
    x = np.zeros((1, *dims), np.float32)
    x[0, :, 1] = 1
    np.save(tmp_path / "x.npy", x)
    request = Request(str(tmp_path / "model.onnx"), (str(tmp_path / "x.npy"),), both=True, targets=("0",))
    lines: list[job.ExplainedRow] = []
    job.run(request, tmp_path / "out", listener=job.Listener(lines.append))
    names = [f"x.gradcam-both.0.{part}.npy" for part in ("against", "for", "net")]
    assert sorted(path.name for path in (tmp_path / "out").glob("x.*")) == names
    maps = [np.load(tmp_path / "out" / name) for name in names]
    np.testing.assert_array_equal(maps[1], x[0, 0])
    np.testing.assert_array_equal(maps[2], x[0, 0] - maps[0])
    (line,) = lines
    assert line.path.endswith("x.gradcam-both.0.for.npy")
    assert any("are not drawn" in warning for warning in line.warnings)
    assert all(found.same for found in repeat(tmp_path / "out" / "manifest.json"))


def keras_1d() -> Any:
    """As tf2onnx writes Conv1D: (N, L, C), lifted to two spatial axes for each convolution."""
    net = Net()
    x = net.input("x", ["N", 9, 2])
    for k in range(2):
        x = net.op("Unsqueeze", net.op("Transpose", x, perm=[0, 2, 1]), net.ints(2))
        x = net.op("Conv", x, net.array(np.full((2, 2, 1, 1), 0.5, np.float32)))
        x = net.op("Transpose", net.op("Squeeze", x, net.ints(2)), perm=[0, 2, 1])
        x = net.op("Relu", net.op("Add", x, net.array(np.zeros(2, np.float32))), out=f"relu{k}")
    net.op("Gemm", net.op("ReduceMean", x, net.ints(1), keepdims=0), net.array(np.eye(2, dtype=np.float32)), out="y")
    return net.model({"y": ["N", 2]})


def test_a_convolution_over_one_axis_lifted_to_two() -> None:
    x = np.zeros((1, 9, 2), np.float32)
    x[0, 6] = 1
    with ogc.Explainer(keras_1d()) as explainer:
        (layer,) = explainer.network.layers
        assert (layer.name, layer.axes) == ("relu1", (0, 2, 1))
        found = explainer.explain(x, target=0)
    assert input_specs(prepare(load(keras_1d()).model).graph)["x"].axes == (0, 2, 1)
    assert found.heatmap.shape == (1, 9)
    assert found.heatmap[0].argmax() == 6


def test_files_of_a_signal(tmp_path: Path) -> None:
    net = Net()
    y = spot(net, net.input("x", ["N", 2, 9]), 2, 1)
    (tmp_path / "model.onnx").write_bytes(net.model({y: ["N", 3]}).SerializeToString())
    np.save(tmp_path / "signal.npy", np.ones((1, 2, 9), np.float32))
    lines: list[job.ExplainedRow] = []
    request = Request(str(tmp_path / "model.onnx"), (str(tmp_path / "signal.npy"),), targets=("0",))
    job.run(request, tmp_path / "out", listener=job.Listener(lines.append))
    assert not any("not drawn" in warning for warning in lines[0].warnings)
    names = ["manifest.json", "signal.gradcam.0.npy", "signal.gradcam.0.png"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "signal.gradcam.0.npy"), np.ones(9, np.float32))


# ------------------------------------------------------------------------------------------- exported modules


def module(space: int) -> Any:
    nn = pytest.importorskip("torch", reason="torch: not installed").nn
    conv, norm, pool = (getattr(nn, f"{name}{space}d") for name in ("Conv", "BatchNorm", "AdaptiveAvgPool"))
    importlib.import_module("torch").manual_seed(0)
    body = [conv(2, 6, 3, padding=1), norm(6), nn.ReLU(), conv(6, 8, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*body, pool(1), nn.Flatten(), nn.Linear(8, 4)).eval()


@pytest.mark.parametrize("space", [1, 3])
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_parity_with_torch(space: int, exporter: str) -> None:
    network = module(space)
    torch, exports = importlib.import_module("torch"), importlib.import_module("exports")
    x = np.random.default_rng(0).standard_normal((2, 2, *(6, 8, 10)[:space]), np.float32)
    model = exports.export(network, torch.zeros(*x.shape), exporter)
    with ogc.Explainer(model) as explainer:
        found = explainer.explain(x)
    images = torch.tensor(x).double()
    activation = network.double()[:5](images).detach().requires_grad_()
    logits = network[5:](activation)
    (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), [activation])
    np.testing.assert_allclose(found.activation, activation.detach(), atol=1e-5)
    np.testing.assert_allclose(found.gradient, gradient, atol=1e-6)
    assert found.heatmap.shape == (2, *x.shape[2:])
    assert ogc.verify(model, x=x[:1]).ok
