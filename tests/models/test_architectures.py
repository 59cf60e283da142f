"""Parity with torch autograd in float64 on every architecture, through both exporters."""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from reference_ops import REFERENCE_OPS
from vjp_check import Erf

import onnx_gradcam as ogc

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = importlib.import_module("exports")  # imports torch

SEEDS = range(9)
TOP_1 = (-1,) * 9

# Trainable parameters of the published implementations without auxiliary classifiers: torchvision's, but of
# googlenet Caffe's and of mobilenet_v1 Keras'.
PARAMETERS = {
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "densenet121": 7_978_856,
    "googlenet": 6_998_552,
    "inception_v3": 23_834_568,
    "squeezenet": 1_235_496,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3": 2_542_856,
    "efficientnet_b0": 5_288_548,
    "shufflenet_v2": 2_278_604,
    "regnet_y": 4_344_144,
    "convnext_tiny": 28_589_128,
}

every_small = pytest.mark.parametrize("name", exports.SMALL)
both_exporters = pytest.mark.parametrize("exporter", exports.EXPORTERS)


@functools.cache
def images(name: str) -> np.ndarray:
    """One for each seed, float32 (N, 3, H, W)."""
    shape = (3, exports.small(name).size, exports.small(name).size)
    return np.stack([np.random.default_rng(seed).standard_normal(shape, np.float32) for seed in SEEDS])


@functools.cache
def truth(name: str, class_index: tuple[int, ...]) -> exports.TorchGradcam:
    """What torch says in float64."""
    return exports.torch_gradcam(exports.small(name), images(name), class_index, torch.float64)


@functools.cache
def ranked(name: str) -> tuple[int, ...]:
    """Image i explains the class of rank i mod 5, so that several ranks are explained in one batch."""
    order = truth(name, TOP_1).logits.argsort(1)[:, ::-1]
    return tuple(int(order[i, i % 5]) for i in range(len(order)))


def one_thread() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def session(model: bytes) -> ort.InferenceSession:
    return ort.InferenceSession(model, one_thread(), providers=["CPUExecutionProvider"])


def relative(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The relative L2 error of every row."""
    axes = tuple(range(1, expected.ndim))
    return np.sqrt(((found - expected) ** 2).sum(axes) / (expected**2).sum(axes))


def cosine(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of every row."""
    axes = tuple(range(1, expected.ndim))
    return (found * expected).sum(axes) / np.sqrt((found**2).sum(axes) * (expected**2).sum(axes))


# Where float64 needs help: the reference evaluator's Gelu and HardSwish use an Erf and a constant of float32, and
# in ONNX the alpha of HardSigmoid, 1/6, is a float32 attribute.


class Gelu(OpRun):
    op_domain = ""

    def _run(self, x: np.ndarray, approximate: str | None = None) -> tuple[np.ndarray]:
        assert approximate == "none"
        return (x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),)


class HardSwish(OpRun):
    op_domain = ""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (x * np.clip(x / 6 + 0.5, 0, 1),)


def hardsigmoid(x: Any, inplace: bool) -> Any:
    return (float(np.float32(1 / 6)) * x + 0.5).clamp(0, 1)


@pytest.mark.parametrize("name", exports.ARCHITECTURES)
def test_full_size_has_the_published_number_of_parameters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks.randomise", lambda network: None)
    with torch.device("meta"):
        network = exports.ARCHITECTURES[name]()
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


@every_small
def test_activations_neither_explode_nor_die(name: str) -> None:
    found = truth(name, TOP_1)
    assert 0.1 < found.activation.std() < 10
    assert 0.1 < found.logits.std(1).mean() < 10
    assert np.linalg.norm(found.input_gradient[0]) > 1e-2


@every_small
@both_exporters
def test_outputs(name: str, exporter: str) -> None:
    (logits,) = session(exports.small_model(name, exporter)).run(None, {"x": images(name)})
    expected = truth(name, TOP_1).logits
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


def check_gradcam(model: bytes, x: np.ndarray, expected: exports.TorchGradcam) -> None:
    """The layer that "auto" takes is the one that torch hooked, and so are gradient and map, for every image."""
    with ogc.Explainer(model, session_options=one_thread()) as explainer:
        found = explainer.explain(x)
    np.testing.assert_array_equal(found.class_index, expected.logits.argmax(1))
    assert relative(found.activation, expected.activation).max() <= 1e-5
    assert relative(found.gradient, expected.gradient).max() <= 1e-5
    signed = (expected.gradient.mean((2, 3), keepdims=True) * expected.activation).sum(1)
    cam = np.maximum(signed, 0)
    assert (np.abs(found.cam - cam).max((1, 2)) <= 1e-4 * np.abs(signed).max((1, 2))).all()
    assert (cam.max((1, 2)) > 0).mean() > 0.5


@every_small
@both_exporters
def test_gradcam_at_the_last_stage(name: str, exporter: str) -> None:
    check_gradcam(exports.small_model(name, exporter), images(name), truth(name, TOP_1))


@pytest.mark.parametrize("opset", [11, 13, 20])
@pytest.mark.parametrize("name", ["shufflenet_v2", "mobilenet_v3", "convnext_tiny"])
def test_gradcam_of_other_opsets(name: str, opset: int) -> None:
    check_gradcam(exports.small_model(name, "torchscript", opset=opset), images(name), truth(name, TOP_1))


@pytest.mark.parametrize("name", ["shufflenet_v2", "convnext_tiny", "googlenet"])
def test_gradcam_with_a_fixed_batch(name: str) -> None:
    model = exports.small_model(name, "torchscript", dynamic_batch=False)
    expected = exports.TorchGradcam(*(a[:3] for a in truth(name, TOP_1)))
    check_gradcam(model, images(name)[:3], expected)


@every_small
@both_exporters
def test_input_gradient_in_float32(name: str, exporter: str) -> None:
    model = ogc.gradient_model(exports.small_model(name, exporter), ["x"])
    feeds = {"x": images(name), "target_index": np.array(ranked(name))}
    (found,) = session(model.SerializeToString()).run(["grad/x"], feeds)
    expected = truth(name, ranked(name)).input_gradient
    assert np.median(relative(found, expected)) <= 1e-5
    assert cosine(found, expected).min() >= 0.999


@every_small
@both_exporters
def test_input_gradient_in_float64(name: str, exporter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "hardsigmoid", hardsigmoid)
    model = ogc.gradient_model(exports.small_model(name, exporter, torch.float64), ["x"])
    x, class_index = images(name)[:2].astype(np.float64), np.array(ranked(name)[:2])
    evaluator = ReferenceEvaluator(model, new_ops=[Erf, Gelu, HardSwish, *REFERENCE_OPS])
    (found,) = evaluator.run(["grad/x"], {"x": x, "target_index": class_index})
    expected = exports.torch_gradcam(exports.small(name), x, class_index, torch.float64).input_gradient
    assert relative(found, expected).max() <= 1e-9
